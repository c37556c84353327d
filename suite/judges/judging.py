"""The contract of judges: a question, an answer, and who answers. No torch, no network."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from suite.errors import UserError

Verdict = Literal["A", "B", "tie", "invalid"]
Winner = Literal["policy", "opponent", "tie", "invalid", "failed"]
Order = Literal["both", "random"]
OWN_JUDGE, LEARNED = "reward model", "learned reward"
"""The judges that need no key: fitted to the half of the pairs that no method sees; and what PPO and Best-of-N optimise."""


@dataclass(frozen=True)
class Comparison:
    """A policy's answer beside its opponent's, to the same prompt."""

    id: str
    """Of the prompt: comparisons of one prompt share it, and intervals resample prompts."""
    prompt: str
    policy: str
    opponent: str
    sample: int = 0
    """Tells several answers to one prompt apart."""


@dataclass(frozen=True)
class Question:
    """A comparison in one order: what is asked, and paid, once."""

    comparison: Comparison
    swapped: bool
    """The opponent's answer stands first."""

    @property
    def a(self) -> str:
        return self.comparison.opponent if self.swapped else self.comparison.policy

    @property
    def b(self) -> str:
        return self.comparison.policy if self.swapped else self.comparison.opponent

    def winner(self, verdict: Verdict) -> Winner:
        """Whose answer the position names."""
        if verdict in ("tie", "invalid"):
            return verdict
        return "opponent" if (verdict == "A") == self.swapped else "policy"


@dataclass(frozen=True)
class Answer:
    """What a judge said. `invalid`: it replied, and the reply names no choice."""

    verdict: Verdict
    reply: str
    """As it came: the text of a language model, the numbers of a reward model."""
    served_model: str = ""
    """What the server says answered: the snapshot behind a model's name."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer came, after all retries. Never stored as a verdict; asked again by the next run."""

    reason: str


class ContextTooShort(UserError):
    """A request does not fit into the model's context; names the prompt."""


class Judge(Protocol):
    """Who answers questions.

    Attributes:
        name: "openai:gpt-4o", "local:FOLDER", "reward:FOLDER", "human:FILE".
        identity: All that could change a verdict: parameters, template's name and hash, seed, address of the server. JSON.
    """

    name: str
    identity: Mapping[str, Any]

    def answer(
        self,
        questions: Sequence[Question],
        on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:
        """Answer every question; call `on_answer` the moment an answer is there.

        Before a question is paid for, `on_start` must be called; where it returns False, somebody else asks it just now.

        Raises:
            UserError: It makes no sense to go on (no credit, no such model, a budget is reached). Answers that were already
                paid for have been handed over.
        """
        ...


def of_numbers(a: float, b: float) -> Verdict:
    """The verdict of a judge that gives each answer a number: the larger wins; a number that is none is no verdict."""
    if math.isnan(a) or math.isnan(b):
        return "invalid"
    return "tie" if a == b else "A" if a > b else "B"


def question_key(judge: Judge, question: Question) -> str:
    """Hash of judge, identity, prompt and both texts in their order: the verdict's name in the store."""
    parts = [judge.name, judge.identity, question.comparison.prompt, question.a, question.b]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def questions_of(comparisons: Iterable[Comparison], *, order: Order, seed: int) -> list[Question]:
    """Both orders of every comparison, or one by a coin that depends on the seed and the comparison alone."""
    if order == "both":
        return [Question(c, swapped) for c in comparisons for swapped in (False, True)]
    return [Question(c, _coin(c, seed)) for c in comparisons]


def _coin(comparison: Comparison, seed: int) -> bool:
    texts = "\x00".join(
        (str(seed), comparison.id, str(comparison.sample), comparison.prompt, comparison.policy, comparison.opponent)
    )
    return hashlib.sha256(texts.encode()).digest()[0] % 2 == 1
