"""Best-of-N: sample N completions from the reference, keep the one that the reward scores highest."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from suite.data.preference_data import Completion, Prompt
from suite.interfaces import LogProbUnavailable, Policy, Promise, RewardFunction, Run, TrainingData
from suite.maths.kl import best_of_n_kl_bound


@dataclass(frozen=True)
class BestOfNConfig:
    """Settings of Best-of-N."""

    n: int = 16
    """Samples per kept completion."""


class BestOfNPolicy:
    """Sample N completions from `base`, keep the one `reward` scores highest (sec. 6 of Rafailov et al. 2023).

    Costs N samples and N reward calls per completion. Ties go to the first sample. It has no tractable log-probability: its
    place on the KL axis is the bound log N - (N - 1)/N nats.
    """

    has_log_prob = False
    has_next_token_log_probs = False

    def __init__(self, base: Policy, reward: RewardFunction, *, n: int) -> None:
        if n < 1:
            raise ValueError(f"n: expected at least 1, got {n}")
        self.base, self.reward, self.n = base, reward, n

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        num_samples: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int,
        on_batch: Callable[[int], Any] | None = None,
    ) -> list[list[Completion]]:
        drawn = self.base.sample(
            prompts, num_samples=num_samples * self.n, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            on_batch=on_batch and (lambda count: on_batch(count // self.n)),
        )  # fmt: skip
        kept = []
        for completions in drawn:
            rewards = self.reward([c.prompt.text for c in completions], [c.text for c in completions])
            groups = np.asarray(rewards).reshape(num_samples, self.n).argmax(axis=1)
            kept.append([completions[k * self.n + int(best)] for k, best in enumerate(groups)])
        return kept

    def kl_upper_bound(self) -> float:
        """Nats; a bound, not an estimate (`suite.maths.kl.best_of_n_kl_bound`)."""
        return best_of_n_kl_bound(self.n)

    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("Best-of-N has no tractable log-probability; use kl_upper_bound()")

    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("Best-of-N has no tractable next-token distribution; use kl_upper_bound()")

    def copy(self) -> Self:
        return type(self)(self.base.copy(), self.reward, n=self.n)

    def save(self, directory: Path) -> None:
        """Write base and reward, each with its own `save`, and N."""
        self.base.save(directory / "base")
        self.reward.save(directory / "reward")  # type: ignore[attr-defined]
        parts = {name: f"{type(part).__module__}:{type(part).__qualname__}" for name, part in self._parts().items()}
        (directory / "best_of_n.json").write_text(json.dumps({"n": self.n, **parts}))

    @classmethod
    def load(cls, directory: Path) -> Self:
        stored = json.loads((directory / "best_of_n.json").read_text())
        base, reward = (pkgutil.resolve_name(stored[name]).load(directory / name) for name in ("base", "reward"))
        return cls(base, reward, n=stored["n"])

    def _parts(self) -> dict[str, object]:
        return {"base": self.base, "reward": self.reward}


class BestOfN:
    """Best-of-N by the learned reward, as in the paper: nothing is trained but the reward model.

    Every N is read off one pool of reference samples.
    """

    name: ClassVar[str] = "Best-of-N"
    Config: ClassVar[type] = BestOfNConfig
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = True

    def train(self, data: TrainingData, reference: Policy, config: BestOfNConfig, run: Run) -> BestOfNPolicy:
        assert data.reward is not None, "the study fills in what `needs` names"
        return BestOfNPolicy(reference, data.reward, n=config.n)


class BestOfNGT(BestOfN):
    """The same by the ground-truth reward, which also measures it: what selection would give with a perfect reward model."""

    name: ClassVar[str] = "Best-of-N-GT"
    needs: ClassVar[frozenset[str]] = frozenset({"gold_reward"})

    def train(self, data: TrainingData, reference: Policy, config: BestOfNConfig, run: Run) -> BestOfNPolicy:
        assert data.gold_reward is not None, "the study fills in what `needs` names"
        return BestOfNPolicy(reference, data.gold_reward, n=config.n)
