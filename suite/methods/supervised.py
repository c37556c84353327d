"""Supervised fine-tuning: makes the reference policy π_ref = π_SFT."""

from dataclasses import dataclass, field
from typing import ClassVar

from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.maths.losses import nll_loss
from suite.training.loop import fit
from suite.training.settings import OptimConfig


@dataclass(frozen=True)
class SFTConfig:
    """Settings of supervised fine-tuning."""

    optim: OptimConfig = field(default_factory=OptimConfig)


class SFT:
    """Maximum likelihood on texts: L = -log π(y|x), summed over completion tokens (`suite.maths.losses.nll_loss`)."""

    name: ClassVar[str] = "SFT"
    Config: ClassVar[type] = SFTConfig
    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    promise: ClassVar[Promise] = "none"
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: Policy, config: SFTConfig, run: Run) -> Policy:
        def loss_fn(policy, texts):
            losses = nll_loss(policy.completion_log_probs(texts))
            return losses, {"logps/chosen": -losses.detach()}

        return fit(reference.copy(), data.texts, loss_fn, config.optim, run)
