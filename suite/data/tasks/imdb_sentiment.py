"""The controlled sentiment task: prefixes of movie reviews, to be continued positively (sec. 6 of Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from suite.data.preference_data import Completion, Prompt
from suite.data.reviews import Reviews
from suite.errors import UserError
from suite.interfaces import Policy

SPLITS = ("train", "validation", "test")
MIN_PREFIX, MAX_PREFIX = 2, 8
"""Prefix length in tokens, uniform, both ends included."""


def prompts_from_model(policy: Policy, sizes: Mapping[str, int], *, seed: int) -> dict[str, list[Prompt]]:
    """Prefixes drawn from the language model itself, starting from EOS (the document separator), at temperature 1.

    No prefix occurs twice, within or across splits.

    Raises:
        UserError: The model repeats itself so much that not enough different prefixes were found.
    """
    eos: int = policy.tokenizer.eos_token_id  # type: ignore[attr-defined]

    def candidates() -> Iterator[tuple[int, ...]]:
        for attempt in range(20):
            count = sum(sizes.values())
            start = [Prompt(f"start/{attempt}/{i}", (eos,), "") for i in range(count)]
            for drawn in policy.sample(start, num_samples=1, max_new_tokens=MAX_PREFIX, seed=seed):
                yield drawn[0].ids

    return _distinct_prefixes({split: candidates() for split in SPLITS}, sizes, eos, policy.decode, seed=seed, shared=True)  # type: ignore[attr-defined]


def prompts_from_reviews(
    reviews: Mapping[str, Reviews], policy: Policy, sizes: Mapping[str, int], *, sft_texts: int, seed: int
) -> dict[str, list[Prompt]]:
    """Prefixes of real reviews: training prefixes from `reviews["train"]`, the others from `reviews["test"]`.

    Each review is tokenised before it is cut, so that the prefix's tokens are those the model was trained on. The first
    `sft_texts` training reviews of the seeded order belong to supervised fine-tuning and give no prefixes.

    Raises:
        UserError: Too few reviews with different prefixes.
    """
    tokenizer = policy.tokenizer  # type: ignore[attr-defined]

    def candidates(split: str) -> Iterator[tuple[int, ...]]:
        for index in review_order(reviews[split], seed)[sft_texts if split == "train" else 0 :]:
            text = reviews[split].texts[index][:400]  # far more than 8 tokens
            yield tuple(tokenizer(text, add_special_tokens=False)["input_ids"][:MAX_PREFIX])

    test = candidates("test")
    sources = {"train": candidates("train"), "validation": test, "test": test}
    return _distinct_prefixes(sources, sizes, tokenizer.eos_token_id, policy.decode, seed=seed)  # type: ignore[attr-defined]


def _distinct_prefixes(
    sources: Mapping[str, Iterator[tuple[int, ...]]],
    sizes: Mapping[str, int],
    eos: int,
    decode: Callable[[Sequence[int]], str],
    *,
    seed: int,
    shared: bool = False,
) -> dict[str, list[Prompt]]:
    """Cut each candidate to a random length and keep it if new, until every split is full; test first, so that its prefixes
    do not depend on how many training prefixes are asked for."""
    seen: set[tuple[int, ...]] = set()
    prompts: dict[str, list[Prompt]] = {}
    stream = next(iter(sources.values()))
    for split in reversed(SPLITS):
        lengths = np.random.default_rng([seed, SPLITS.index(split)])
        prompts[split] = []
        for ids in stream if shared else sources[split]:
            if len(prompts[split]) == sizes[split]:
                break
            prefix = ids[: lengths.integers(MIN_PREFIX, MAX_PREFIX + 1)]
            if len(prefix) >= MIN_PREFIX and eos not in prefix and prefix not in seen:
                seen.add(prefix)
                prompts[split].append(Prompt(f"{split}-{len(prompts[split]):05d}", prefix, decode(prefix)))
        if len(prompts[split]) < sizes[split]:
            raise UserError(
                f"only {len(prompts[split])} different {split} prefixes of {MIN_PREFIX} to {MAX_PREFIX} tokens could be found, "
                f"{sizes[split]} are needed; pass more reviews with --reviews or ask for fewer prompts"
            )
    return prompts


def review_order(reviews: Reviews, seed: int) -> np.ndarray:
    """The seeded order in which reviews are dealt: first to supervised fine-tuning, then to prefixes."""
    return np.random.default_rng(seed).permutation(len(reviews.texts))


def texts_for_sft(reviews: Reviews, policy: Policy, *, count: int, max_tokens: int, seed: int) -> list[Completion]:
    """Whole reviews as completions of EOS, for supervised fine-tuning; cut ones carry no EOS and are marked as truncated."""
    tokenizer = policy.tokenizer  # type: ignore[attr-defined]
    eos = tokenizer.eos_token_id
    start = Prompt("start", (eos,), "")
    texts = []
    for index in review_order(reviews, seed)[:count]:
        ids = [*tokenizer(reviews.texts[index], add_special_tokens=False)["input_ids"], eos]
        texts.append(Completion(start, tuple(ids[:max_tokens]), reviews.texts[index], truncated=len(ids) > max_tokens))
    return texts
