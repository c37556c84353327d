"""The controlled sentiment task: prefixes of movie reviews, to be continued positively (sec. 6 of Rafailov et al. 2023)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import count as count_up
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from suite.data.preference_data import Completion, Prompt
from suite.data.reviews import Reviews
from suite.errors import UserError


class Drawable(Protocol):
    """What a prefix needs of a language model: its tokenizer, its decoding, and samples."""

    tokenizer: Any

    def decode(self, ids: Sequence[int]) -> str: ...

    def sample(
        self, prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, seed: int
    ) -> list[list[Completion]]: ...


Split = Literal["train", "validation", "test"]
MIN_PREFIX, MAX_PREFIX = 2, 8
"""Prefix length in tokens, uniform, both ends included."""
CANDIDATES_PER_DRAW = 1024
MAX_DRAWS = 50
PROMPTS_FILE = "prompts.json"
"""Beside a model's weights: split → token ids of prefixes, as `prompts_from_model` once drew them from it."""


def split_of(prefix: tuple[int, ...]) -> Split:
    """The split a prefix belongs to: 90 % training, 3 % validation, 7 % test, by a hash of its tokens.

    So the splits are disjoint by construction, and none depends on how large the others are.
    """
    bucket = int.from_bytes(hashlib.sha256(repr(prefix).encode()).digest()[:4], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 93 else "test"


def prompts_of_model(folder: Path, policy: Drawable, split: Split, size: int, *, seed: int) -> list[Prompt]:
    """The first prefixes of the model's own list, the same on every machine; drawn anew where the list is too short or absent.

    Args:
        folder: Of the model; its list is `PROMPTS_FILE`.
        policy: The model.
        split: Which prefixes, see `split_of`.
        size: How many.
        seed: Of the draw, if there is one.

    Raises:
        UserError: Not enough different prefixes were found.
    """
    listed = json.loads((folder / PROMPTS_FILE).read_text())[split] if (folder / PROMPTS_FILE).exists() else []
    if len(listed) < size:
        return prompts_from_model(policy, split, size, seed=seed)
    return [_prompt(split, number, tuple(ids), policy) for number, ids in enumerate(listed[:size])]


def prompts_from_model(policy: Drawable, split: Split, size: int, *, seed: int) -> list[Prompt]:
    """Prefixes drawn from the language model itself, starting from EOS (the document separator), at temperature 1.

    Raises:
        UserError: The model repeats itself so much that not enough different prefixes were found.
    """
    eos: int = policy.tokenizer.eos_token_id

    def candidates() -> Iterator[tuple[int, ...]]:
        for draw in range(MAX_DRAWS):
            start = [Prompt(f"start/{draw}/{i}", (eos,), "") for i in range(CANDIDATES_PER_DRAW)]
            for drawn in policy.sample(start, num_samples=1, max_new_tokens=MAX_PREFIX, seed=seed):
                yield drawn[0].ids

    return _distinct_prefixes(candidates(), policy, split, size, seed=seed)


def prompts_from_reviews(
    reviews: Reviews, policy: Drawable, split: Split, size: int, *, sft_texts: int, seed: int
) -> list[Prompt]:
    """Prefixes of real reviews: training prefixes come from the training reviews, the others from the test reviews.

    Each review is tokenised before it is cut, so that the prefix's tokens are those the model was trained on. The first
    `sft_texts` training reviews of the seeded order belong to supervised fine-tuning and give no prefixes.

    Args:
        reviews: Training reviews for the training split, test reviews for the others.
        policy: Whose tokenizer cuts.
        split: Which prefixes to keep, see `split_of`.
        size: How many.
        sft_texts: How many training reviews to leave out.
        seed: Of the order of the reviews and the lengths.

    Raises:
        UserError: Too few reviews with different prefixes.
    """
    tokenizer = policy.tokenizer

    def candidates() -> Iterator[tuple[int, ...]]:
        for index in review_order(reviews, seed)[sft_texts if split == "train" else 0 :]:
            text = reviews.texts[index][:400]  # far more than 8 tokens
            yield tuple(tokenizer(text, add_special_tokens=False)["input_ids"][:MAX_PREFIX])

    return _distinct_prefixes(candidates(), policy, split, size, seed=seed)


def _distinct_prefixes(
    candidates: Iterator[tuple[int, ...]], policy: Drawable, split: Split, size: int, *, seed: int
) -> list[Prompt]:
    """Cut each candidate to a random length; keep it if new and of this split. Asking for more keeps the first ones."""
    eos: int = policy.tokenizer.eos_token_id
    lengths = np.random.default_rng(seed)
    seen: set[tuple[int, ...]] = set()
    prompts: list[Prompt] = []
    number = count_up()
    while len(prompts) < size:
        ids = next(candidates, None)
        if ids is None:
            raise UserError(
                f"only {len(prompts)} different {split} prefixes of {MIN_PREFIX} to {MAX_PREFIX} tokens could be found, "
                f"{size} are needed; pass more reviews with --reviews or use a smaller profile"
            )
        prefix = ids[: lengths.integers(MIN_PREFIX, MAX_PREFIX + 1)]
        if len(prefix) >= MIN_PREFIX and eos not in prefix and prefix not in seen and split_of(prefix) == split:
            seen.add(prefix)
            prompts.append(_prompt(split, next(number), prefix, policy))
    return prompts


def _prompt(split: Split, number: int, ids: tuple[int, ...], policy: Drawable) -> Prompt:
    return Prompt(f"{split}-{number:05d}", ids, policy.decode(ids))


def review_order(reviews: Reviews, seed: int) -> np.ndarray:
    """The seeded order in which reviews are dealt: first to supervised fine-tuning, then to prefixes."""
    return np.random.default_rng(seed).permutation(len(reviews.texts))


def texts_for_sft(reviews: Reviews, policy: Drawable, *, count: int, max_tokens: int, seed: int) -> list[Completion]:
    """Whole reviews as completions of EOS, for supervised fine-tuning; cut ones carry no EOS and are marked as truncated."""
    tokenizer = policy.tokenizer
    eos = tokenizer.eos_token_id
    start = Prompt("start", (eos,), "")
    texts = []
    for index in review_order(reviews, seed)[:count]:
        ids = [*tokenizer(reviews.texts[index], add_special_tokens=False)["input_ids"], eos]
        texts.append(Completion(start, tuple(ids[:max_tokens]), reviews.texts[index], truncated=len(ids) > max_tokens))
    return texts
