"""A reward of texts as judge: the answer with more reward wins. Blind to the order, and never asked twice for nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from suite.data.comparisons import Answer, Question
from suite.interfaces import RewardFunction
from suite.judges.judging import OnAnswer, OnStart, of_numbers

QUESTIONS_AT_ONCE = 256


class RewardJudge:
    """Compares `reward(prompt, answer)` of both answers; equal rewards are a tie.

    Args:
        name: For tables and the store.
        reward: Higher is better.
        digest: Of what computes the reward; in every verdict's key.
    """

    def __init__(self, name: str, reward: RewardFunction, *, digest: str) -> None:
        self.name, self.reward = name, reward
        self._known: dict[tuple[str, str], float] = {}
        self.identity: Mapping[str, Any] = {"model": digest}

    def answer(self, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        """See `suite.interfaces.Judge`."""
        for at in range(0, len(questions), QUESTIONS_AT_ONCE):
            asked = [question for question in questions[at : at + QUESTIONS_AT_ONCE] if on_start(question)]
            sides = {(q.comparison.prompt, text): None for q in asked for text in (q.a, q.b)}
            if new := [side for side in sides if side not in self._known]:  # an answer is read once, whatever it is compared to
                self._known.update(zip(new, map(float, self.reward(*map(list, zip(*new, strict=True)))), strict=True))
            for question in asked:
                a, b = (self._known[question.comparison.prompt, text] for text in (question.a, question.b))
                on_answer(question, Answer(of_numbers(a, b), f"r(A) = {a:.6g}, r(B) = {b:.6g}"))
