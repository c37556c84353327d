"""Prompts, completions and preference pairs as token ids.

Text → tokens does not round-trip (least of all for prefixes of 2 to 8 tokens), so a prompt and a completion carry their
ids and are joined as ids, never as text. What belongs to the completion is decided by length, never by token id: the
padding token may well be EOS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy continues. `id` is unique within a study and names the prompt in every record."""

    id: str
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A continuation of `prompt`: its tokens alone, of which the last is EOS, and the text that they spell before it."""

    prompt: Prompt
    ids: tuple[int, ...]
    text: str
    truncated: bool  # the length limit ended it; then there is no EOS
    sampler_log_prob: float = math.nan
    """Nats, of `ids` under the sampler that drew them, in its precision and at its temperature; NaN if unknown."""

    @property
    def length(self) -> int:
        """Tokens, the prompt's included."""
        return len(self.prompt.ids) + len(self.ids)

    @property
    def completions(self) -> tuple[Completion, ...]:
        """Itself: what is learned from a text, a pair or a ranking goes by one name."""
        return (self,)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two completions of one prompt, `chosen` preferred; gold rewards and log π_ref [nats, summed] are columns."""

    chosen: Completion
    rejected: Completion
    chosen_reward: float
    rejected_reward: float
    reference_chosen_logps: float
    reference_rejected_logps: float
    rating: int | None = field(default=None, kw_only=True)  # from 0 to 3 (`suite.data.ratings`); None where nobody said
    domain: str = field(default="", kw_only=True)  # which kind of preference it is; empty where there is one

    @property
    def prompt(self) -> Prompt:
        return self.chosen.prompt

    @property
    def completions(self) -> tuple[Completion, ...]:
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class Ranking:
    """Completions of one prompt, best first, with gold rewards and log π_ref [nats, summed]; at least two."""

    completions: tuple[Completion, ...]
    rewards: tuple[float, ...]
    reference_logps: tuple[float, ...]

    @property
    def prompt(self) -> Prompt:
        return self.completions[0].prompt
