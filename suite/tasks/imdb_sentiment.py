"""The controlled sentiment task: prefixes of movie reviews, to be continued positively (sec. 6 of Rafailov et al. 2023)."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from suite.common.errors import UserError
from suite.data.preference_data import Completion, Prompt
from suite.data.reviews import Reviews, load_reviews
from suite.interfaces import Example, Reading, Split

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


def prompts_of_model(folder: Path, policy: Any, split: Split, size: int, *, seed: int, draw: int = 0) -> list[Prompt]:
    """Prefixes of the model's own list in its folder (`PROMPTS_FILE`), the same on every machine: of training a random draw,
    of the other splits the first.

    Where the list is too short or absent they are drawn anew, see `prompts_from_model`.
    """
    listed = json.loads((folder / PROMPTS_FILE).read_text())[split] if (folder / PROMPTS_FILE).exists() else []
    if len(listed) < size:
        return prompts_from_model(policy, split, size, seed=1_000_003 * draw + seed)
    order = _drawn(len(listed), seed, draw) if split == "train" else range(size)
    return [_prompt(split, number, tuple(listed[number]), policy) for number in order[:size]]


def _drawn(count: int, seed: int, draw: int) -> list[int]:
    """The order in which one draw takes so many training prompts."""
    return np.random.default_rng([seed, draw]).permutation(count).tolist()


def prompts_from_model(policy: Any, split: Split, size: int, *, seed: int) -> list[Prompt]:
    """Prefixes drawn from the language model itself, starting from EOS (the document separator), at temperature 1.

    Raises:
        UserError: The model repeats itself so much that not enough different prefixes were found.
    """
    eos: int = policy.tokenizer.eos_token_id
    starts = ([Prompt(f"start/{draw}/{i}", (eos,), "") for i in range(CANDIDATES_PER_DRAW)] for draw in range(MAX_DRAWS))
    draws = (policy.sample(start, num_samples=1, max_new_tokens=MAX_PREFIX, seed=seed) for start in starts)
    candidates = (samples[0].ids for drawn in draws for samples in drawn)
    return _distinct_prefixes(candidates, policy, split, size, seed=seed)


def prompts_from_reviews(
    reviews: Reviews, policy: Any, split: Split, size: int, *, sft_texts: int, seed: int, draw: int = 0
) -> list[Prompt]:
    """Prefixes of real reviews: training prefixes come from the training reviews, the others from the test reviews.

    Each review is tokenised before it is cut, so that the prefix's tokens are those the model was trained on. The first
    `sft_texts` training reviews of the seeded order belong to supervised fine-tuning and give no prefixes; each `draw` takes
    the others in an order of its own.

    Raises:
        UserError: Too few reviews with different prefixes.
    """
    order = review_order(reviews, seed)
    if split == "train":
        order = order[sft_texts:]
        order = order[_drawn(len(order), seed, draw)]
    texts = (reviews.texts[index][:400] for index in order)  # far more than 8 tokens
    candidates = (tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"][:MAX_PREFIX]) for text in texts)
    return _distinct_prefixes(candidates, policy, split, size, seed=seed)


def _distinct_prefixes(
    candidates: Iterator[tuple[int, ...]], policy: Any, split: Split, size: int, *, seed: int
) -> list[Prompt]:
    """Cut each candidate to a random length; keep it if new and of this split. Asking for more keeps the first ones."""
    eos: int = policy.tokenizer.eos_token_id
    lengths = np.random.default_rng(seed)
    found: dict[tuple[int, ...], Prompt] = {}
    while len(found) < size:
        ids = next(candidates, None)
        if ids is None:
            raise UserError(
                f"only {len(found)} different {split} prefixes of {MIN_PREFIX} to {MAX_PREFIX} tokens could be found, "
                f"{size} are needed; pass more reviews with --reviews or use a smaller profile"
            )
        prefix = ids[: lengths.integers(MIN_PREFIX, MAX_PREFIX + 1)]
        if len(prefix) >= MIN_PREFIX and eos not in prefix and prefix not in found and split_of(prefix) == split:
            found[prefix] = _prompt(split, len(found), prefix, policy)
    return list(found.values())


def _prompt(split: Split, number: int, ids: tuple[int, ...], policy: Any) -> Prompt:
    return Prompt(f"{split}-{number:05d}", ids, policy.decode(ids))


def review_order(reviews: Reviews, seed: int) -> np.ndarray:
    """The seeded order in which reviews are dealt: first to supervised fine-tuning, then to prefixes."""
    return np.random.default_rng(seed).permutation(len(reviews.texts))


def texts_for_sft(reviews: Reviews, policy: Any, *, count: int, max_tokens: int, seed: int) -> list[Completion]:
    """Whole reviews as completions of EOS, for supervised fine-tuning; cut ones carry no EOS and are marked as truncated."""
    eos = policy.tokenizer.eos_token_id
    start = Prompt("start", (eos,), "")
    texts = []
    for index in review_order(reviews, seed)[:count]:
        ids = [*policy.tokenizer(reviews.texts[index], add_special_tokens=False)["input_ids"], eos]
        texts.append(Completion(start, tuple(ids[:max_tokens]), reviews.texts[index], truncated=len(ids) > max_tokens))
    return texts


class ImdbSentiment:
    """See `suite.interfaces.Task`: prefixes of reviews, or of what the model itself writes; preferences are its samples."""

    name = "imdb_sentiment"
    gives_pairs = False
    gold_reward = None
    template = "sentiment"
    reference_answer = ""

    def examples(self, split: Split, size: int, reading: Reading) -> tuple[list[Example], dict[str, int]]:
        """Different prefixes of one split, from `reading.source` (labelled reviews) or, without it, from the model."""
        policy = reading.load_policy()
        if reading.source is None:
            prompts = prompts_of_model(reading.model, policy, split, size, seed=reading.seed, draw=reading.draw)
        else:
            reviews = load_reviews(reading.source, "train" if split == "train" else "test")
            prompts = prompts_from_reviews(
                reviews, policy, split, size, sft_texts=reading.texts, seed=reading.seed, draw=reading.draw
            )
        return [Example(prompt, shown=prompt.text) for prompt in prompts], {"rows": len(prompts), "used": len(prompts)}

    def texts(self, size: int, max_tokens: int, reading: Reading) -> list[Completion]:
        """Whole reviews that give no prefixes; see `texts_for_sft`."""
        if reading.source is None:
            raise UserError("task imdb_sentiment: fine-tuning needs reviews; give them with --reviews")
        reviews, policy = load_reviews(reading.source, "train"), reading.load_policy()
        return texts_for_sft(reviews, policy, count=size, max_tokens=max_tokens, seed=reading.seed)


TASK = ImdbSentiment()
