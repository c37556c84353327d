"""The whole contract in one file: what a policy, a reward, a method and a run are. Protocols only, no code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from torch import Tensor

from suite.data.preference_data import Completion, PreferencePair, Prompt, Ranking

Promise = Literal["follows_optimum", "improves_reward", "none"]


class LogProbUnavailable(Exception):
    """The policy has no tractable log-probability (`has_log_prob` is False), for example Best-of-N."""


@runtime_checkable
class Policy(Protocol):
    """A distribution over completions given a prompt: all that an evaluator may assume about a method's result.

    Attributes:
        has_log_prob: `log_prob` works.
        has_next_token_log_probs: `next_token_log_probs` works, so that the exact KL can be computed.
    """

    has_log_prob: bool
    has_next_token_log_probs: bool

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
        """Draw `num_samples` completions per prompt, in prompt order. Same seed, batch and device: same tokens.

        Length is in tokens, EOS included. `temperature` 0 is greedy. No top-k or top-p. Every completion carries the
        `sampler_log_prob` it was drawn with. `on_batch` is to be called with the number of completions just drawn.
        """
        ...

    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(y|x) in nats at temperature 1, summed over completion tokens. Shape (len(completions),), float32, no gradient.

        Raises:
            LogProbUnavailable: `has_log_prob` is False.
        """
        ...

    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(·|x, y_<t) over the vocabulary for every completion token.

        Shape (len(completions), longest completion, vocabulary), float32, no gradient; rows past a completion's end are
        meaningless. Large: call it with few completions at a time.

        Raises:
            LogProbUnavailable: `has_next_token_log_probs` is False.
        """
        ...

    def copy(self) -> Self:
        """An independent policy with the same weights, to train."""
        ...

    def save(self, directory: Path) -> None:
        """Write all that `load` needs into `directory`."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        ...


class RewardFunction(Protocol):
    """A reward of texts: it sees decoded text and uses whatever tokenizer it likes.

    The call has the shape of TRL's reward functions, so theirs can be used here.
    """

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float]:
        """One reward per (prompt, completion), higher is better."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """What a method may learn from. A method gets only the fields it names in `needs`; the others are empty or None."""

    texts: Sequence[Completion] = ()
    pairs: Sequence[PreferencePair] = ()
    rankings: Sequence[Ranking] = ()
    prompts: Sequence[Prompt] = ()
    reward: RewardFunction | None = None
    """Learned from the pairs."""
    gold_reward: RewardFunction | None = None
    """The ground truth that methods are measured by; privileged."""
    max_new_tokens: int | None = None
    """Length limit of completions, EOS included, for methods that sample."""


class Run(Protocol):
    """What a method is given to be reproducible, observable and interruptible.

    Attributes:
        seed: The source of all the method's randomness.
        directory: Where it may leave files of its own.
    """

    seed: int
    directory: Path

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append one row of metrics."""
        ...

    def snapshot(self, policy: Policy, step: int) -> None:
        """Keep `policy` as it is at `step` through its `save`, to be evaluated later through its class's `load`.

        The study expects exactly `optim.num_snapshots` of them. Saving the same step twice is harmless.
        """
        ...

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Store all that is needed to go on from `step`; replaces the one before."""
        ...

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last stored state, or None at the first start."""
        ...

    def checkpoint_due(self) -> bool:
        """True when enough time has passed since the last checkpoint to write the next."""
        ...

    def progress(self, total: int, unit: str, done: int = 0) -> AbstractContextManager[Any]:
        """A progress bar with `update(n)`."""
        ...


class Method(Protocol):
    """A way to obtain a policy from preferences. Implement this to compare your idea with every baseline.

    Attributes:
        name: As shown in figures.
        Config: A frozen dataclass, JSON-serialisable, every field with a default. A method that is trained has a field
            `optim: OptimConfig`, which the study fills in: learning rate, batch size, how many snapshots.
        needs: The fields of `TrainingData` that it uses, a frozenset; `max_new_tokens` is always given.
        promise: What it is held to where the truth is known (`suite check-method`). "follows_optimum": with `Config.beta` and
            labels from the Bradley-Terry model of r it goes to π* ∝ π_ref·exp(r/β). "improves_reward": the expected reward
            rises. "none".
        evaluated_from_pool: True if the policy only keeps the best of `Config.n` reference samples by the reward it `needs`
            (learned or gold); then nothing is trained, and the shared pool of reference samples gives its place on the
            frontier (Best-of-N).
        trained: Optional; False for a method that trains nothing (prompting), has no `optim` and keeps one snapshot.
        grid: Optional; settings to sweep, a sequence of mappings from fields of `Config` to values (compare_method.py).
        packages: Optional; names of packages whose version decides the result beside its code (TRL), part of a run's key.
        resumable: Optional; False for a method that starts again after a kill (TRL's trainers).
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    promise: ClassVar[Promise]
    evaluated_from_pool: ClassVar[bool]

    def train(self, data: TrainingData, reference: Policy, config: Any, run: Run) -> Policy:
        """Return a trained policy.

        Must not modify `reference`; draws all randomness from `run.seed`; calls `run.snapshot(policy, step)` at the steps to
        be evaluated, the last one included; resumes from `run.load_checkpoint()` when there is one.
        """
        ...
