"""Direct Preference Optimization."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from suite.data.preference_data import PreferencePair
from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.maths.losses import dpo_loss, implicit_reward_metrics
from suite.training.loop import fit
from suite.training.settings import OptimConfig

PairLogProbs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Policy chosen, policy rejected, reference chosen, reference rejected: nats, summed over tokens, each of shape (pairs,)."""


@dataclass(frozen=True)
class DPOConfig:
    """Settings of DPO, and of its variants that have no more."""

    beta: float = 0.1
    """Weight of the KL constraint; larger stays closer to the reference."""
    optim: OptimConfig = field(default_factory=OptimConfig)


class DPO:
    """L = -log σ(β·(Δ log π - Δ log π_ref)), Eq. 7 of Rafailov et al. 2023 (`suite.maths.losses.dpo_loss`).

    The reference appears only as two columns of the pairs. Logs the metrics of `implicit_reward_metrics`. A pairwise variant
    is a subclass with another `losses` (`suite.methods.dpo_variants`).
    """

    name: ClassVar[str] = "DPO"
    Config: ClassVar[type] = DPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "follows_optimum"
    evaluated_from_pool: ClassVar[bool] = False

    def log_probs(self, policy: Any, pairs: Sequence[PreferencePair]) -> PairLogProbs:
        """What the loss and the metrics are made of."""
        return pair_log_probs(policy, pairs)

    def losses(self, logps: PairLogProbs, config: Any) -> Tensor:
        """One loss per pair, shape (len(pairs),)."""
        return dpo_loss(*logps, beta=config.beta)

    def train(self, data: TrainingData, reference: Policy, config: Any, run: Run) -> Policy:
        def loss_fn(policy, pairs):
            logps = self.log_probs(policy, pairs)
            return self.losses(logps, config), implicit_reward_metrics(*logps, beta=config.beta)

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)


def pair_log_probs(policy, pairs: Sequence[PreferencePair]) -> PairLogProbs:
    """One forward pass over both sides, with gradient; the reference's log-probs are read from the pairs."""
    both = policy.completion_log_probs([p.chosen for p in pairs] + [p.rejected for p in pairs])
    reference = torch.tensor([[p.reference_chosen_logps, p.reference_rejected_logps] for p in pairs], device=both.device)
    return both[: len(pairs)], both[len(pairs) :], reference[:, 0], reference[:, 1]
