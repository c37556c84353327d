"""Two rewards as one: safety where it matters, helpfulness elsewhere (sec. 3.2.3 of Touvron et al. 2023, arXiv:2307.09288)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from suite.common.errors import UserError
from suite.interfaces import RewardFunction
from suite.policies.model_config import COMBINED
from suite.rewards.helpfulness import last_turn
from suite.rewards.reward_model import RewardModel, RewardScale, scale_in

PARTS = ("helpfulness", "safety")


@dataclass(frozen=True)
class CombinedRewardConfig:
    """When the safety reward counts."""

    threshold: float = 0.15
    """Where the safety score, in (0, 1), is below this; the paper's value, chosen on its own test set."""
    flag_words: tuple[str, ...] = ()
    """And where one of these words is in what the user says last, whole and in any case; the paper's flags came with its
    prompts."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold: expected a number in [0, 1), got {self.threshold}")


class CombinedReward:
    """R(x, y) = whiten(logit R_c), with R_c = R_s if x is flagged or R_s < `threshold`, else R_h.

    The scores R are sigmoids of the parts' logits. A Bradley-Terry loss on pairs of one prompt leaves the zero of a logit free,
    for every prompt its own; that of a reward model is one for all, the mean over the completions of its pairs
    (`RewardModel.logits`), where R = ½. Whitening is (· - mean) / std over the completions of all pairs.

    Args:
        helpfulness: Its logits are read: `logits` of a reward model, `log_odds` of a classifier, else what the function gives.
        safety: Likewise.
        config: When the second counts.
        scale: Mean and standard deviation for whitening.
    """

    def __init__(
        self, helpfulness: RewardFunction, safety: RewardFunction, config: CombinedRewardConfig | None = None,
        scale: RewardScale | None = None,
    ) -> None:  # fmt: skip
        self.parts: dict[str, Any] = dict(zip(PARTS, (helpfulness, safety), strict=True))
        self.config, self.scale = config or CombinedRewardConfig(), scale or RewardScale()

    readers: ClassVar[int] = 2
    """Models that read every text."""

    @property
    def device(self) -> Any:
        """Where the parts are."""
        return self.parts["safety"].device

    def flagged(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """In which prompts the user's last turn has one of the words. Shape (len(prompts),)."""
        words = "|".join(map(re.escape, self.config.flag_words))
        found = re.compile(rf"(?<!\w)({words})(?!\w)", re.IGNORECASE) if words else None
        return np.array([bool(found and found.search(last_turn(prompt))) for prompt in prompts], dtype=bool)

    def logits(self, prompts: Sequence[str], completions: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The logit of R_c of each completion, and whether it is that of the safety score. Shapes (len(prompts),)."""
        of = {name: logits_of(part, prompts, completions) for name, part in self.parts.items()}
        safe = 1 / (1 + np.exp(-of["safety"]))
        by_safety = self.flagged(prompts) | (safe < self.config.threshold)
        return np.where(by_safety, of["safety"], of["helpfulness"]), by_safety

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """Rewards in standard deviations from the mean of the completions that whitened it."""
        return list((self.logits(prompts, completions)[0] - self.scale.mean) / self.scale.std)

    def whitened(self, prompts: Sequence[str], completions: Sequence[str]) -> CombinedReward:
        """The same with mean 0 and standard deviation 1 on these completions."""
        values = self.logits(prompts, completions)[0]
        scale = RewardScale(float(values.mean()), float(values.std()) or 1.0)
        return CombinedReward(self.parts["helpfulness"], self.parts["safety"], self.config, scale)

    def save(self, directory: Path) -> None:
        """Write both parts, each with its own `save`, and what combines them."""
        directory = Path(directory)
        for name, part in self.parts.items():
            part.save(directory / name)
        (directory / "reward_scale.json").write_text(json.dumps(asdict(self.scale)))
        (directory / COMBINED).write_text(json.dumps(asdict(self.config)))

    @classmethod
    def load(cls, directory: Path | str, *, device: str = "cpu") -> CombinedReward:
        """Read what `save` wrote of two reward models. Raises UserError if a part is missing or a setting is none."""
        folder = Path(directory)
        helpfulness, safety = (RewardModel.load(folder / name, device=device) for name in PARTS)
        return cls(helpfulness, safety, config_in(folder), scale_in(folder))


def logits_of(reward: Any, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
    """Logits of a reward model or classifier; of any other reward what it gives. Shape (len(prompts),)."""
    read = next((getattr(reward, name) for name in ("logits", "log_odds") if hasattr(reward, name)), reward)
    return np.asarray(read(prompts, completions), dtype=float)


def config_in(folder: Path) -> CombinedRewardConfig:
    """The settings beside two reward models. Raises UserError if they are none."""
    path = folder / COMBINED
    try:
        given: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return CombinedRewardConfig(float(given["threshold"]), tuple(map(str, given["flag_words"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected an object with threshold and flag_words ({error})") from error
