"""What judges share: names of the study's own, keys of questions, orders. No torch, no network."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable

from suite.common import errors
from suite.data.comparisons import Answer, Comparison, Failure, Order, Question, Verdict
from suite.interfaces import Judge

OWN_JUDGE, LEARNED = "reward model", "learned reward"
"""The judges that need no key: fitted to the half of the pairs that no method sees; and what PPO and Best-of-N optimise."""
OnAnswer = Callable[[Question, Answer | Failure], None]
OnStart = Callable[[Question], bool]


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
    c = comparison
    return int(text_hash(str(seed), c.id, str(c.sample), c.prompt, c.policy, c.opponent)[:2], 16) % 2 == 1


def text_hash(*texts: str) -> str:
    """64 hexadecimal digits that depend on all texts and their order."""
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which UTF-8 cannot write."""
    return text.encode("utf-8", "replace").decode()


def shown(text: object, most: int = 200) -> str:
    """Somebody else's text in one line, as `suite.common.errors.shown` writes it."""
    return errors.shown(" ".join(clean(str(text)).split()), most)
