"""Completions as padded batches: the one collate function of the project, what is learned from one prompt kept together, and
batches of like lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Group:
    """All that is learned from one prompt: texts, pairs or rankings."""

    examples: tuple[Any, ...]
    sequences: int  # different completions among them
    length: int  # tokens of the longest, prompt included


def by_prompt(examples: Sequence[Any]) -> list[Group]:
    """Texts, pairs or rankings by their prompt's id, prompts in order of first appearance."""
    of_prompt: dict[str, list[Any]] = {}
    for example in examples:
        of_prompt.setdefault(example.prompt.id, []).append(example)
    groups = []
    for some in of_prompt.values():
        rows = {(c.prompt.ids, c.ids): c.length for example in some for c in example.completions}
        groups.append(Group(tuple(some), len(rows), max(rows.values())))
    return groups


def different(rows: Sequence[Hashable]) -> tuple[list[int], list[int] | slice]:
    """Where each different row stands first, and the index by which something of these gives back all rows."""
    place: dict[Hashable, int] = {}
    which = [place.setdefault(row, len(place)) for row in rows]
    if len(place) == len(rows):
        return which, slice(None)
    first = {k: i for i, k in reversed(list(enumerate(which)))}
    return [first[k] for k in range(len(place))], which


def length_batches(
    lengths: Sequence[int], size: Callable[[int], int], counts: Sequence[int] | None = None
) -> Iterator[list[int]]:  # fmt: skip
    """Indices of sequences in batches of like lengths, so that little is padded; the longest come first.

    Args:
        lengths: Of each item, its longest sequence.
        size: The longest length of a batch → how many sequences it may hold; at least one item is taken.
        counts: Sequences of each item, which stay together; None: 1.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        room = size(lengths[order[-1]])
        batch = [order.pop()]
        room -= counts[batch[0]] if counts else 1
        while order and room >= (needed := counts[order[-1]] if counts else 1):
            room -= needed
            batch.append(order.pop())
        yield batch[::-1]
