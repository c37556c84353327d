"""Direct Preference Optimization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from suite.interfaces import Policy, Run, TrainingData
from suite.maths.losses import dpo_loss, implicit_reward_metrics
from suite.training.loop import OptimConfig, fit


@dataclass(frozen=True)
class DPOConfig:
    """Settings of DPO."""

    beta: float = 0.1
    """Weight of the KL constraint; larger stays closer to the reference."""
    optim: OptimConfig = field(default_factory=OptimConfig)


class DPO:
    """L = -log σ(β·(Δ log π - Δ log π_ref)), Eq. 7 of Rafailov et al. 2023 (`suite.maths.losses.dpo_loss`).

    The reference appears only as two columns of the pairs. Logs the metrics of `implicit_reward_metrics`.
    """

    name: ClassVar[str] = "DPO"
    Config: ClassVar[type] = DPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: Policy, config: DPOConfig, run: Run) -> Policy:
        def loss_fn(policy, pairs):
            logps = pair_log_probs(policy, pairs)
            return dpo_loss(*logps, beta=config.beta), implicit_reward_metrics(*logps, beta=config.beta)

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)


def pair_log_probs(policy, pairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Policy chosen, policy rejected, reference chosen, reference rejected log-probs in nats, each of shape (len(pairs),).

    One forward pass over both sides; the reference's are read from the pairs.
    """
    both = policy.completion_log_probs([p.chosen for p in pairs] + [p.rejected for p in pairs])
    reference = torch.tensor([[p.reference_chosen_logps, p.reference_rejected_logps] for p in pairs], device=both.device)
    return both[: len(pairs)], both[len(pairs) :], reference[:, 0], reference[:, 1]
