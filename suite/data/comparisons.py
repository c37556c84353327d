"""What a judge is asked and what it says: two answers to one prompt, in an order. No torch."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["A", "B", "tie", "invalid"]
Winner = Literal["policy", "opponent", "tie", "invalid", "failed"]
Order = Literal["both", "random"]


@dataclass(frozen=True)
class Comparison:
    """A policy's answer beside its opponent's, to the same prompt."""

    id: str  # of the prompt: comparisons of one prompt share it, and intervals resample prompts
    prompt: str
    policy: str
    opponent: str
    sample: int = 0  # tells several answers to one prompt apart


@dataclass(frozen=True)
class Question:
    """A comparison in one order: what is asked, and paid, once."""

    comparison: Comparison
    swapped: bool  # the opponent's answer stands first

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
    reply: str  # as it came: the text of a language model, the numbers of a reward model
    served_model: str = ""  # what the server says answered: the snapshot behind a model's name
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer came, after all retries. Never stored as a verdict; asked again by the next run."""

    reason: str
    refused: bool = False  # the judge will not answer, and not because of this question alone
