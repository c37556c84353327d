"""The whole contract in one file: policy, reward, method, run, task, evaluator, judge. Protocols and plain data, no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from suite.data.comparisons import Answer, Failure, Question
from suite.data.preference_data import Completion, PreferencePair, Prompt, Ranking

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

Promise = Literal["follows_optimum", "improves_reward", "none"]


class LogProbUnavailable(Exception):
    """The policy has no tractable log-probability (`has_log_prob` is False), for example Best-of-N."""


POLICY_CLASS = "policy_class"
"""File of a saved policy that names its class, module:Class. A class that is not `CausalLMPolicy` is registered by its package
(entry points `suite.policies`), or stands in the module of its method; no other name is imported."""


@runtime_checkable
class Policy(Protocol):
    """A distribution over completions given a prompt: all that an evaluator may assume about a method's result."""

    has_log_prob: bool  # `log_prob` works
    has_next_token_log_probs: bool  # `next_token_log_probs` works, so that the exact KL can be computed

    def sample(
        self, prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, temperature: float = 1.0, seed: int,
        on_batch: Callable[[int], Any] | None = None,
    ) -> list[list[Completion]]:  # fmt: skip
        """Draw `num_samples` completions per prompt, in prompt order. Same seed, batch and device: same tokens.

        Length is in tokens, EOS included. `temperature` 0 is greedy. No top-k or top-p. Every completion carries the
        `sampler_log_prob` it was drawn with. `on_batch` is to be called with the number of completions just drawn.
        """

    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(y|x) in nats at temperature 1, summed over completion tokens. Shape (len(completions),), float32, no gradient.

        Raises:
            LogProbUnavailable: `has_log_prob` is False.
        """

    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(·|x, y_<t) over the vocabulary for every completion token.

        Shape (len(completions), longest completion, vocabulary), float32, no gradient; rows past a completion's end are
        meaningless. Large: call it with few completions at a time.

        Raises:
            LogProbUnavailable: `has_next_token_log_probs` is False.
        """

    def copy(self) -> Self:
        """An independent policy with the same weights, to train."""

    def save(self, directory: Path) -> None:
        """Write all that `load` needs into `directory`."""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""


class TrainablePolicy(Policy, Protocol):
    """What methods need beyond sampling and scoring: a model whose log-probs carry gradients."""

    model: Any  # a Hugging Face causal language model; its parameters are what is trained
    tokenizer: Any  # its tokenizer
    tokens_trained: int  # tokens, prompts included, that went through a forward pass with gradient
    tokens_sampled: int  # tokens that a method on its own samples has drawn
    tokens_scored: int  # tokens, prompts included, that such a method has scored without gradient

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, exactly as the tokens spell it."""

    def completion_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        """As `log_prob`, in one batch and with gradient."""

    def completion_token_log_probs(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor]:
        """Log π(y_t|x, y_<t) of every token, with gradient, and the mask of real entries; shapes (completions, longest)."""

    def completion_states(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor, Tensor]:
        """As `completion_token_log_probs`, with the last hidden state before each token between the two."""


class RewardFunction(Protocol):
    """A reward of texts: it sees decoded text and uses whatever tokenizer it likes.

    The call has the shape of TRL's reward functions, so theirs can be used here.
    """

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float]:
        """One reward per (prompt, completion), higher is better."""


@dataclass(frozen=True)
class TrainingData:
    """What a method may learn from. A method gets only the fields it names in `needs`; the others are empty or None."""

    texts: Sequence[Completion] = ()
    pairs: Sequence[PreferencePair] = ()
    rankings: Sequence[Ranking] = ()
    prompts: Sequence[Prompt] = ()
    reward: RewardFunction | None = None  # learned from the pairs
    gold_reward: RewardFunction | None = None  # the ground truth that methods are measured by; privileged
    max_new_tokens: int | None = None  # length limit of completions, EOS included, for methods that sample


class Run(Protocol):
    """What a method is given to be reproducible, observable and interruptible."""

    seed: int  # the source of all the method's randomness
    directory: Path  # where it may leave files of its own

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append one row of metrics."""

    def snapshot(self, policy: Policy, step: int) -> None:
        """Keep `policy` as it is at `step` through its `save`, to be evaluated later through its class's `load`.

        The study expects exactly `optim.num_snapshots` of them. Saving the same step twice is harmless.
        """

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Store all that is needed to go on from `step`; replaces the one before."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last stored state, or None at the first start."""

    def checkpoint_due(self) -> bool:
        """True when enough time has passed since the last checkpoint to write the next."""

    def progress(self, total: int, unit: str, done: int = 0) -> AbstractContextManager[Any]:
        """A progress bar with `update(n)`."""


class Method(Protocol):
    """A way to obtain a policy from preferences. Implement this to compare your idea with every baseline.

    Attributes:
        name: As shown in figures.
        Config: A frozen dataclass, JSON-serialisable, every field with a default. A method that is trained has a field
            `optim: OptimConfig`, which the study fills in: learning rate, batch size, how many snapshots. One that draws its
            own samples has `num_steps`, `samples_per_step` and `epochs_per_step`, so that all such methods draw equally many,
            and `n` if it learns from the best of every n alone.
        needs: The fields of `TrainingData` that it uses, a frozenset; `max_new_tokens` is always given.
        promise: What it is held to where the truth is known (`suite check-method`). "follows_optimum": with `Config.beta` and
            labels from the Bradley-Terry model of r it goes to π* ∝ π_ref·exp(r/β). "improves_reward": the expected reward
            rises. "none".
        evaluated_from_pool: True if the policy only keeps the best of `Config.n` reference samples by the reward it `needs`
            (learned or gold); then nothing is trained, and the shared pool of reference samples gives its place on the
            frontier (Best-of-N).
        trained: Optional; False for a method that trains nothing (prompting), has no `optim` and keeps one snapshot.
        grid: Optional; settings to sweep, a sequence of mappings from fields of `Config` to values (`suite compare`).
        packages: Optional; names of packages whose version decides the result beside its code (TRL), part of a run's key.
        resumable: Optional; False for a method that starts again after a kill (TRL's trainers).
        one_process: Optional; True for one whose model must not be sharded over several GPUs, since it does not ask the policy
            for its numbers but the model itself (TRL's trainers).
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    promise: ClassVar[Promise]
    evaluated_from_pool: ClassVar[bool]

    def train(self, data: TrainingData, reference: TrainablePolicy, config: Any, run: Run) -> Policy:
        """Return a trained policy.

        Must not modify `reference`; draws all randomness from `run.seed`; calls `run.snapshot(policy, step)` at the steps to
        be evaluated, the last one included; resumes from `run.load_checkpoint()` when there is one.
        """


Split = Literal["train", "validation", "test", "methods", "judge", "all"]
"""Who reads a prompt. "train", "validation" and "test" are disjoint. Where a judge is fitted to given preferences, those of all
but the test prompts are halved between "methods" and "judge"; where it is not, methods have "all"."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt of a task, with the answers that its data give."""

    prompt: Prompt  # as the policy continues it
    shown: str = ""  # as people read it
    answer: str = ""  # the whole reference answer, or the preferred one; empty if there is none
    chosen: Completion | None = None  # an answer as tokens, at the length limit of completions
    rejected: Completion | None = None  # likewise
    rating: int | None = None  # how much better the chosen answer is, from 0 to 3 (`suite.data.ratings`)
    domain: str = ""  # what kind of preference it is


@dataclass(frozen=True)
class Reading:
    """Where a task reads, for which model, and how long its texts may be."""

    source: str | None  # Hub name, folder or file that the study names; None for the task's own
    tests: str | None  # the data whose test prompts are answered, if that is not `source`: they are nobody's to learn from
    model: Path  # folder of the language model before fine-tuning
    tokenizer: Any  # its tokenizer
    load_policy: Callable[[], TrainablePolicy]  # loads the model itself, for tasks that draw their prompts from it
    max_prompt_tokens: int  # length limit of prompts
    max_new_tokens: int  # length limit of completions, EOS included
    weights: tuple[float, ...] = ()  # share of each of several sources among the examples; empty: all that there is
    rows: int | None = None  # only the first so many rows of every split are read
    single_turn: bool = False  # only conversations of one turn are test prompts
    texts: int = 0  # texts that supervised fine-tuning reads; they give no training prompts
    seed: int = 0  # of every draw
    draw: int = 0  # which draw of training prompts from all there are: training seeds learn from their own; others have 0


class Task(Protocol):
    """What is studied: prompts of disjoint splits, where preferences come from, what fits the reference."""

    name: str  # as shown on pages
    gives_pairs: bool  # its examples carry preferences; if not, samples of the reference are labelled by the gold reward
    gold_reward: str | None  # measures where the study names nothing: a model's folder or Hub name, or module:function
    template: str  # what a judge is asked (a name of `suite.judges.templates`)
    reference_answer: str  # what `Example.answer` is, in words; empty if there is none

    def examples(self, split: Split, size: int, reading: Reading) -> tuple[list[Example], dict[str, int]]:
        """The first `size` examples of a split, and counts of what was read (`rows`), `used` and left out, by reason.

        Raises:
            UserError: Too few; says what to do.
        """

    def texts(self, size: int, max_tokens: int, reading: Reading) -> list[Completion]:
        """Texts that fit the reference, where it is not the chosen answers that do.

        Raises:
            UserError: The task has none.
        """


@dataclass(frozen=True)
class Contender:
    """Who is in the race: one method at one setting and training seed, or the reference."""

    method: str  # as shown in tables, like its setting
    setting: str = ""
    seed: int = 0  # of training
    snapshots: int = 0  # how many policies its run keeps; 0 for the reference and for Best-of-N
    n: int = 1  # Best-of-`n` keeps one of so many samples of the reference; 1 for all others
    learned: bool = False  # Best-of-N selects by the learned reward, not by the gold one

    @property
    def label(self) -> str:
        """Method and setting."""
        return f"{self.method} {self.setting}".strip()


@dataclass(frozen=True)
class Point:
    """Where a contender is measured: one policy of it at one temperature, and the place of that in a figure."""

    panel: str  # of which part of the figure it is a point
    x: float = 0.0  # where it stands there
    temperature: float = 1.0  # of its samples; 0 is greedy
    snapshot: int | None = None  # which of its run's policies, in order of steps; None where the reference's samples are read
    samples: int = 1  # drawn per prompt
    splits: tuple[Split, ...] = ("test",)  # on whose prompts


@dataclass(frozen=True)
class Metric:
    """What a number is: its unit, how it was estimated, and which direction is better (None: neither)."""

    unit: str
    estimator: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Context:
    """What an evaluator may use beside the samples: those that it names in `needs`, the others are None."""

    policy: Policy | None = None  # whose samples these are
    reference: Policy | None = None  # π_ref
    gold_reward: RewardFunction | None = None  # the ground truth
    temperature: float = 1.0  # of the samples
    judge: Judge | None = None  # who compares answers
    store: Any = None  # where verdicts are kept (`suite.judges.verdict_store`)
    seed: int = 0  # of intervals and coins
    keep: Callable[[str, pd.DataFrame], None] = lambda name, table: None  # puts a table, by name, beside the results


class Evaluator(Protocol):
    """What is measured of samples: one row per (policy, prompt, metric), never a mean, never an interval.

    Attributes:
        name: Registered, or as shown.
        needs: Of {"gold_reward", "next_token_log_probs", "reference_answers", "judge"}. With a judge all samples are measured
            at once, in the process that pays; without, each policy's in a run of its own.
        settings: Optional; fields of its own that decide its numbers, a mapping that its class takes as keywords.
        metrics: Name → what it is.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    metrics: ClassVar[Mapping[str, Metric]]

    def points(self, contender: Contender) -> Sequence[Point]:
        """What must be sampled of a contender."""

    def measure(self, samples: pd.DataFrame, context: Context) -> pd.DataFrame:
        """Numbers of samples.

        Args:
            samples: One row per completion: `point`, `split`, `prompt_id`, `sample`, `ids`, `text`, `tokens`, `truncated`,
                `sampler_log_prob`; of its prompt `prompt_ids`, `prompt_text`, and where the task has them `shown`, `answer`,
                `answer_cut`.
            context: What `needs` names.

        Returns:
            `point`, `split`, `prompt_id`, `sample`, `metric`, `value`.

        Raises:
            UserError: It cannot go on; nothing that was paid for is lost.
        """


class Judge(Protocol):
    """Who answers questions.

    Attributes:
        name: "openai:gpt-4o", "local:FOLDER", "reward:FOLDER", "human:FILE".
        identity: All that could change a verdict: parameters, template's name and hash, seed, address of the server. JSON.
    """

    name: str
    identity: Mapping[str, Any]

    def answer(
        self, questions: Sequence[Question], on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:  # fmt: skip
        """Answer every question; call `on_answer` the moment an answer is there.

        Before a question is paid for, `on_start` must be called; where it returns False, somebody else asks it just now.

        Raises:
            UserError: It makes no sense to go on (no credit, no such model, a budget is reached). Answers that were already
                paid for have been handed over.
        """
