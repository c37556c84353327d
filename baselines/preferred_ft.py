"""Preferred-FT: supervised fine-tuning on the chosen completions (sec. 6 of Rafailov et al. 2023)."""

from dataclasses import replace
from typing import ClassVar

from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.methods.supervised import SFT, SFTConfig


class PreferredFT(SFT):
    """L = -log π(y_w|x), summed over completion tokens (`suite.maths.losses.nll_loss`)."""

    name: ClassVar[str] = "Preferred-FT"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"

    def train(self, data: TrainingData, reference: Policy, config: SFTConfig, run: Run) -> Policy:
        return super().train(replace(data, texts=[pair.chosen for pair in data.pairs]), reference, config, run)
