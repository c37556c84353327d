"""Is a policy degenerating? Length, endings, repetition, diversity and plausibility of its completions. Pure functions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

REPETITION_ORDER = 3
MAX_REPETITION = 0.1
MAX_IDENTICAL = 0.05
PERPLEXITY_RANGE = (0.2, 20.0)
MIN_DISTINCT = 0.5
MIN_LENGTH = 0.5


def distinct_n(ids: Sequence[Sequence[int]], n: int) -> float:
    """Different n-grams over all n-grams of all completions together (Li et al. 2016, arXiv:1510.03055). NaN without any.

    It falls with the number of completions: compare equal numbers only.
    """
    grams = [tuple(some[i : i + n]) for some in ids for i in range(len(some) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition(ids: Sequence[int], n: int = REPETITION_ORDER) -> float:
    """Share of a completion's n-grams that occurred in it before: 0 for none, near 1 for a loop. 0 if shorter than n."""
    return 1 - distinct_n([ids], n) if len(ids) >= n else 0.0


def generation_health(frame: pd.DataFrame) -> dict[str, float]:
    """Health of a policy's completions, one row each: `ids`, `text`, `tokens`, `truncated`, `reference_logps` [nats].

    Returns:
        `tokens` (mean length, EOS included), `eos_rate`, `distinct_1`, `distinct_2`, `distinct_3` (over token ids),
        `repetition` (mean over completions, 3-grams), `identical` (share of completions whose text another one has),
        `reference_perplexity` = exp(-Σ log π_ref / Σ tokens). Raises ValueError if there are no completions.
    """
    if frame.empty:
        raise ValueError("frame: no completions")
    ids = [list(map(int, some)) for some in frame["ids"]]
    return {
        "tokens": float(frame["tokens"].mean()),
        "eos_rate": float(1 - frame["truncated"].mean()),
        **{f"distinct_{n}": distinct_n(ids, n) for n in (1, 2, 3)},
        "repetition": float(np.mean([repetition(some) for some in ids])),
        "identical": float(frame["text"].duplicated(keep=False).mean()),
        "reference_perplexity": math.exp(min(-frame["reference_logps"].sum() / frame["tokens"].sum(), 700.0)),
    }


def alarms(health: Mapping[str, float], reference: Mapping[str, float]) -> list[str]:
    """What is wrong with a policy's completions beside the reference's on as many prompts; empty if nothing is.

    Repetition more than 0.1 above the reference's; more than 5 % identical completions beyond it; distinct-2 or length below
    half of it; perplexity under the reference below a fifth of its own (the policy says what is most likely, over and over)
    or above twenty times it (gibberish).
    """
    repeated, identical, tokens = health["repetition"], health["identical"], health["tokens"]
    perplexity = health["reference_perplexity"]
    ratio = perplexity / reference["reference_perplexity"]
    wrong = {
        f"repeats itself ({repeated:.0%} of 3-grams)": repeated > reference["repetition"] + MAX_REPETITION,
        f"{identical:.0%} identical completions": identical > reference["identical"] + MAX_IDENTICAL,
        f"distinct-2 {health['distinct_2']:.2f}": health["distinct_2"] < MIN_DISTINCT * reference["distinct_2"],
        f"{tokens:.0f} tokens": tokens < MIN_LENGTH * reference["tokens"],
        f"perplexity {perplexity:.0f}": not PERPLEXITY_RANGE[0] <= ratio <= PERPLEXITY_RANGE[1],
    }
    return [words for words, applies in wrong.items() if applies]
