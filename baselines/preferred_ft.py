"""Preferred-FT: supervised fine-tuning on the chosen completions (sec. 6 of Rafailov et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.maths.losses import nll_loss
from suite.training.loop import OptimConfig, fit


@dataclass(frozen=True)
class PreferredFTConfig:
    """Settings of Preferred-FT."""

    optim: OptimConfig = field(default_factory=OptimConfig)


class PreferredFT:
    """L = -log π(y_w|x), summed over completion tokens (`suite.maths.losses.nll_loss`)."""

    name: ClassVar[str] = "Preferred-FT"
    Config: ClassVar[type] = PreferredFTConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: Policy, config: PreferredFTConfig, run: Run) -> Policy:
        def loss_fn(policy, pairs):
            losses = nll_loss(policy.completion_log_probs([pair.chosen for pair in pairs]))
            return losses, {"logps/chosen": -losses.detach()}

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)
