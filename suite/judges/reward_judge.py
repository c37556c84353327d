"""A reward of texts as judge: the answer with more reward wins. Blind to the order, and never asked twice for nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from suite.interfaces import RewardFunction
from suite.judges.judging import Answer, Failure, Question, of_numbers

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
        self.identity: Mapping[str, Any] = {"model": digest}

    def answer(
        self,
        questions: Sequence[Question],
        on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:
        """See `suite.judges.judging.Judge`."""
        for at in range(0, len(questions), QUESTIONS_AT_ONCE):
            asked = [question for question in questions[at : at + QUESTIONS_AT_ONCE] if on_start(question)]
            prompts = [question.comparison.prompt for question in asked]
            values = self.reward([*prompts, *prompts], [*(q.a for q in asked), *(q.b for q in asked)])
            for question, a, b in zip(asked, values[: len(asked)], values[len(asked) :], strict=True):
                on_answer(question, Answer(of_numbers(a, b), f"r(A) = {float(a):.6g}, r(B) = {float(b):.6g}"))
