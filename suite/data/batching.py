"""Completions as padded batches: the one collate function of the project, and batches of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.data.preference_data import Completion


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompt + completion rows, padded. All tensors have shape (batch, length)."""

    input_ids: Tensor  # padding holds 0, which nothing reads
    attention_mask: Tensor  # 1 on real tokens
    position_ids: Tensor
    completion_mask: Tensor  # True exactly on completion tokens, EOS included

    def to(self, device: torch.device | str) -> TokenBatch:
        return TokenBatch(*(getattr(self, name).to(device) for name in self.__slots__))


def collate(completions: Sequence[Completion]) -> TokenBatch:
    """Join each prompt with its completion as ids and pad on the right to one length.

    Raises:
        ValueError: A prompt or a completion is empty (the prompt's id is named): there is nothing to condition on or to score.
    """
    for completion in completions:
        if not completion.prompt.ids or not completion.ids:
            part = "prompt" if not completion.prompt.ids else "completion"
            raise ValueError(f"prompt {completion.prompt.id!r}: empty {part}; drop it or lengthen the limit")
    rows = [torch.tensor([*c.prompt.ids, *c.ids]) for c in completions]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    position = torch.arange(input_ids.shape[1]).repeat(len(rows), 1)
    real = position < torch.tensor([len(row) for row in rows])[:, None]
    prompt_lengths = torch.tensor([len(c.prompt.ids) for c in completions])[:, None]
    return TokenBatch(input_ids, real.long(), position, real & (position >= prompt_lengths))


def length_batches(lengths: Sequence[int], size: Callable[[int], int]) -> Iterator[list[int]]:
    """Indices of sequences in batches of like lengths, so that little is padded; the longest come first.

    `size`: the longest length of a batch → how many sequences it may hold; at least one is taken.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        count = max(1, size(lengths[order[-1]]))
        yield order[-count:]
        order = order[:-count]
