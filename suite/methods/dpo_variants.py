"""Pairwise variants of DPO: the same pairs, log-probs and loop, another loss each (`suite.maths.losses`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from suite.data.preference_data import PreferencePair
from suite.interfaces import Promise
from suite.maths.losses import dpo_loss, hinge_loss, ipo_loss, robust_dpo_loss
from suite.methods.dpo import DPO, DPOConfig, PairLogProbs, pair_log_probs


@dataclass(frozen=True)
class NoisyLabelsConfig(DPOConfig):
    """Settings of the variants that assume flipped labels."""

    label_smoothing: float = 0.1
    """The assumed probability that a label is flipped, in [0, 0.5)."""


@dataclass(frozen=True)
class IPOMeanConfig(DPOConfig):
    """Settings of IPO with log-probs averaged over tokens."""

    beta: float = 1.0
    """The τ of the paper: the margin aimed at is 1/(2·beta) nats per token."""


class ConservativeDPO(DPO):
    """DPO that expects a share of the labels to be wrong and so aims at a finite margin (`dpo_loss`, label_smoothing > 0)."""

    name: ClassVar[str] = "cDPO"
    Config: ClassVar[type] = NoisyLabelsConfig
    promise: ClassVar[Promise] = "improves_reward"

    def losses(self, logps: PairLogProbs, config: NoisyLabelsConfig) -> Tensor:
        return dpo_loss(*logps, beta=config.beta, label_smoothing=config.label_smoothing)


class RobustDPO(DPO):
    """DPO corrected for a known share of flipped labels; unbounded below, hence guarded (`robust_dpo_loss`)."""

    name: ClassVar[str] = "rDPO"
    Config: ClassVar[type] = NoisyLabelsConfig
    promise: ClassVar[Promise] = "improves_reward"

    def losses(self, logps: PairLogProbs, config: NoisyLabelsConfig) -> Tensor:
        return robust_dpo_loss(*logps, beta=config.beta, label_smoothing=config.label_smoothing)


class IPOSum(DPO):
    """IPO on summed log-probs, as in the DPO authors' code: the margin aimed at is 1/(2β) nats per completion (`ipo_loss`)."""

    name: ClassVar[str] = "IPO (sum)"
    promise: ClassVar[Promise] = "improves_reward"

    def losses(self, logps: PairLogProbs, config: DPOConfig) -> Tensor:
        return ipo_loss(*logps, beta=config.beta)


class IPOMean(IPOSum):
    """IPO on log-probs averaged over tokens, as in TRL: the margin aimed at is 1/(2β) nats per token (`ipo_loss`).

    Its metrics are of averaged log-probs too, so that `rewards/margins` compares with the target ½.
    """

    name: ClassVar[str] = "IPO (mean)"
    Config: ClassVar[type] = IPOMeanConfig

    def log_probs(self, policy: Any, pairs: Sequence[PreferencePair]) -> PairLogProbs:
        logps = pair_log_probs(policy, pairs)
        lengths = torch.tensor([[len(p.chosen.ids), len(p.rejected.ids)] for p in pairs], device=logps[0].device)
        chosen, rejected = lengths[:, 0], lengths[:, 1]
        return logps[0] / chosen, logps[1] / rejected, logps[2] / chosen, logps[3] / rejected


class HingeDPO(DPO):
    """Hinge loss on the implicit reward margin: pairs with β·h ≥ 1 no longer push (`hinge_loss`)."""

    name: ClassVar[str] = "Hinge"
    promise: ClassVar[Promise] = "improves_reward"

    def losses(self, logps: PairLogProbs, config: DPOConfig) -> Tensor:
        return hinge_loss(*logps, beta=config.beta)
