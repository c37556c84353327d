"""Best-of-N: sample N completions from the reference, keep the one that the reward scores highest."""

import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from suite.data.preference_data import Completion, Prompt
from suite.interfaces import LogProbUnavailable, Policy, Promise, RewardFunction, Run, TrainingData


@dataclass(frozen=True)
class BestOfNConfig:
    """Settings of Best-of-N."""

    n: int = 16
    """Samples per kept completion."""


class BestOfNPolicy:
    """Sample N completions from `base`, keep the one `reward` scores highest (sec. 6 of Rafailov et al. 2023).

    Costs N samples and N reward calls per completion. Ties go to the first sample. It has no tractable log-probability: its
    place on the KL axis is the bound log N - (N - 1)/N nats (`suite.maths.best_of_n.best_of_n_kl_bound`).
    """

    has_log_prob = False
    has_next_token_log_probs = False

    def __init__(self, base: Policy, reward: RewardFunction, *, n: int) -> None:
        if n < 1:
            raise ValueError(f"n: expected at least 1, got {n}")
        self.base, self.reward, self.n = base, reward, n

    def sample(
        self, prompts: Sequence[Prompt], *, num_samples: int, on_batch: Callable[[int], Any] | None = None, **drawing: Any
    ) -> list[list[Completion]]:
        """As `Policy.sample`; `drawing` is what the base is told besides."""
        of_base = on_batch and (lambda count: on_batch(count // self.n))
        drawn = self.base.sample(prompts, num_samples=num_samples * self.n, on_batch=of_base, **drawing)
        kept = []
        for completions in drawn:
            rewards = self.reward([c.prompt.text for c in completions], [c.text for c in completions])
            groups = np.asarray(rewards).reshape(num_samples, self.n).argmax(axis=1)
            kept.append([completions[k * self.n + int(best)] for k, best in enumerate(groups)])
        return kept

    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("Best-of-N has no tractable log-probability; use best_of_n_kl_bound(n)")

    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        raise LogProbUnavailable("Best-of-N has no tractable next-token distribution; use best_of_n_kl_bound(n)")

    def copy(self) -> Self:
        return type(self)(self.base.copy(), self.reward, n=self.n)

    def save(self, directory: Path) -> None:
        """Write base and reward, each with its own `save`, and N."""
        stored: dict[str, Any] = {"n": self.n}
        for name in ("base", "reward"):
            part = getattr(self, name)
            part.save(directory / name)
            stored[name] = f"{type(part).__module__}:{type(part).__qualname__}"
        (directory / "best_of_n.json").write_text(json.dumps(stored))

    @classmethod
    def load(cls, directory: Path) -> Self:
        stored = json.loads((directory / "best_of_n.json").read_text())
        base, reward = (pkgutil.resolve_name(stored[name]).load(directory / name) for name in ("base", "reward"))
        return cls(base, reward, n=stored["n"])


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
        return super().train(replace(data, reward=data.gold_reward), reference, config, run)
