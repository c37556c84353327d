"""Prompts, completions and preference pairs as token ids, and the one collate function of the project.

Text → tokens does not round-trip (least of all for prefixes of 2 to 8 tokens), so a prompt and a completion carry their
ids and are joined as ids, never as text. What belongs to the completion is decided by length, never by token id: the
padding token may well be EOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy continues. `id` is unique within a study and names the prompt in every record."""

    id: str
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A continuation of `prompt`.

    Attributes:
        ids: Tokens of the completion alone; the last one is EOS unless `truncated`. Exactly one EOS, none if truncated.
        text: The decoded `ids` without EOS.
        truncated: True if the length limit ended it.
        sampler_log_prob: log-probability in nats of `ids` under the sampler that drew them, in the sampler's precision,
            at the sampling temperature; NaN if unknown.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    text: str
    truncated: bool
    sampler_log_prob: float = float("nan")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two completions of one prompt, `chosen` preferred; gold rewards and log π_ref [nats, summed] are columns."""

    chosen: Completion
    rejected: Completion
    chosen_reward: float
    rejected_reward: float
    reference_chosen_logps: float
    reference_rejected_logps: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Completions of one prompt, best first, with gold rewards and log π_ref [nats, summed]; at least two."""

    completions: tuple[Completion, ...]
    rewards: tuple[float, ...]
    reference_logps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompt + completion rows, padded. All tensors have shape (batch, length).

    Attributes:
        input_ids: Token ids; padding holds 0, which nothing reads.
        attention_mask: 1 on real tokens.
        position_ids: 0 at the first real token, whatever the padding side; counting on through padding on the right.
        completion_mask: True exactly on completion tokens, EOS included.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    completion_mask: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        return TokenBatch(*(getattr(self, name).to(device) for name in self.__slots__))


def collate(completions: Sequence[Completion], *, padding: Literal["right", "left"] = "right") -> TokenBatch:
    """Join each prompt with its completion as ids and pad to one length.

    Raises:
        ValueError: A prompt or a completion is empty (the prompt's id is named): there is nothing to condition on or to score.
    """
    for completion in completions:
        if not completion.prompt.ids or not completion.ids:
            part = "prompt" if not completion.prompt.ids else "completion"
            raise ValueError(f"prompt {completion.prompt.id!r}: empty {part}; drop it or lengthen the limit")
    prompt_lengths = torch.tensor([len(c.prompt.ids) for c in completions])[:, None]
    lengths = torch.tensor([len(c.prompt.ids) + len(c.ids) for c in completions])[:, None]
    width = int(lengths.max())
    offsets = torch.zeros_like(lengths) if padding == "right" else width - lengths
    position = torch.arange(width)[None] - offsets
    real = (position >= 0) & (position < lengths)
    input_ids = torch.zeros(len(completions), width, dtype=torch.long)
    input_ids[real] = torch.tensor([i for c in completions for i in (*c.prompt.ids, *c.ids)])
    return TokenBatch(input_ids, real.long(), position.clamp_min(0), real & (position >= prompt_lengths))
