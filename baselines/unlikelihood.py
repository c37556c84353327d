"""Unlikelihood: the DPO paper's unbounded baseline, and the bounded per-token form of Welleck et al."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from suite.data.preference_data import PreferencePair
from suite.interfaces import Policy, Promise, Run, TrainablePolicy, TrainingData
from suite.maths.losses import implicit_reward_metrics, unlikelihood_loss, welleck_unlikelihood_loss
from suite.methods.dpo import pair_log_probs
from suite.training.loop import fit
from suite.training.settings import OptimConfig


@dataclass(frozen=True)
class UnlikelihoodConfig:
    """Settings of both forms."""

    alpha: float = 0.1
    """Weight of the rejected completion, in [0, 1]."""
    optim: OptimConfig = field(default_factory=OptimConfig)


class Unlikelihood:
    """L = -log π(y_w|x) + α·log π(y_l|x), unbounded below (`suite.maths.losses.unlikelihood_loss`).

    Logs the metrics of `implicit_reward_metrics` with β = 1.
    """

    name: ClassVar[str] = "Unlikelihood"
    Config: ClassVar[type] = UnlikelihoodConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: Policy, config: UnlikelihoodConfig, run: Run) -> Policy:
        def loss_fn(policy: TrainablePolicy, pairs: Sequence[PreferencePair]) -> tuple[Tensor, dict[str, Tensor]]:
            logps = pair_log_probs(policy, pairs)
            return unlikelihood_loss(*logps[:2], alpha=config.alpha), implicit_reward_metrics(*logps)

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)


class WelleckUnlikelihood(Unlikelihood):
    """L = -log π(y_w|x) - α·Σ_t log(1 - π(y_l,t|…)), bounded below (`suite.maths.losses.welleck_unlikelihood_loss`)."""

    name: ClassVar[str] = "Unlikelihood (Welleck)"

    def train(self, data: TrainingData, reference: Policy, config: UnlikelihoodConfig, run: Run) -> Policy:
        def loss_fn(policy: TrainablePolicy, pairs: Sequence[PreferencePair]) -> tuple[Tensor, dict[str, Tensor]]:
            tokens, mask = policy.completion_token_log_probs([p.chosen for p in pairs] + [p.rejected for p in pairs])
            chosen, rejected = tokens[: len(pairs)].sum(-1), tokens[len(pairs) :]
            losses = welleck_unlikelihood_loss(chosen, rejected, mask[len(pairs) :], alpha=config.alpha)
            return losses, {"logps/chosen": chosen.detach(), "logps/rejected": rejected.detach().sum(-1)}

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)
