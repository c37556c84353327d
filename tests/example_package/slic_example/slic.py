"""SLiC-HF: a margin between two log-probabilities, with a term that holds the chosen one up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.training.loop import fit
from suite.training.settings import OptimConfig


@dataclass(frozen=True)
class SLiCConfig:
    """Settings of SLiC."""

    delta: float = 1.0
    """Margin, nats."""
    weight: float = 0.1
    """Of the likelihood of the chosen completion."""
    optim: OptimConfig = field(default_factory=OptimConfig)


class SLiC:
    """L = max(0, δ - log π(y_w|x) + log π(y_l|x)) - λ·log π(y_w|x), Zhao et al. 2023 (arXiv:2305.10425), Eq. 2."""

    name: ClassVar[str] = "SLiC"
    Config: ClassVar[type] = SLiCConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    grid = ({"delta": 1.0}, {"delta": 5.0})

    def train(self, data: TrainingData, reference: Policy, config: SLiCConfig, run: Run) -> Policy:
        def loss_fn(policy, pairs):
            both = policy.completion_log_probs([p.chosen for p in pairs] + [p.rejected for p in pairs])
            chosen, rejected = both[: len(pairs)], both[len(pairs) :]
            margin = chosen - rejected
            losses = (config.delta - margin).clamp_min(0) - config.weight * chosen
            return losses, {"margin": margin.detach(), "logps/chosen": chosen.detach()}

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)
