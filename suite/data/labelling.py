"""Completions with gold rewards → preference pairs."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

Labels = Literal["hard", "bradley_terry"]


def label_pairs(completions: pd.DataFrame, *, labels: Labels, scale: float, seed: int) -> tuple[pd.DataFrame, dict[str, int]]:
    """All pairs of completions of each prompt (6 of 4), labelled by the gold reward.

    Identical completions and, with hard labels, equal rewards are dropped and counted, never broken by order.

    Args:
        completions: Columns `prompt_id`, `sample`, `ids`, `text`, `truncated`, `reward`, `reference_logps`.
        labels: `hard`: the higher gold reward wins (the DPO paper). `bradley_terry`: a wins with probability
            σ(scale·(r_a - r_b)), drawn from `seed`.
        scale: Of the Bradley-Terry model, in 1 / reward units.
        seed: Of the Bradley-Terry draws.

    Returns:
        The pairs (columns `prompt_id` and, for both sides, `ids`, `text`, `truncated`, `reward` as `chosen_…`, `rejected_…`,
        `reference_…_logps`), and the counts `pairs`, `dropped_identical`, `dropped_tied`.

    Raises:
        ValueError: Unknown `labels`, or `scale` ≤ 0.
    """
    if labels not in ("hard", "bradley_terry"):
        raise ValueError(f"labels: expected 'hard' or 'bradley_terry', got {labels!r}")
    if not scale > 0:
        raise ValueError(f"scale: expected a number > 0, got {scale}")
    rng = np.random.default_rng(seed)
    counts = {"pairs": 0, "dropped_identical": 0, "dropped_tied": 0}
    rows = []
    for prompt_id, group in completions.groupby("prompt_id", sort=False):
        for a, b in combinations(group.itertuples(index=False), 2):
            if list(a.ids) == list(b.ids):
                counts["dropped_identical"] += 1
            elif labels == "hard" and a.reward == b.reward:
                counts["dropped_tied"] += 1
            else:
                a_wins = a.reward > b.reward
                if labels == "bradley_terry":
                    a_wins = rng.random() < 1 / (1 + np.exp(-scale * (a.reward - b.reward)))
                rows.append(_pair_row(prompt_id, *((a, b) if a_wins else (b, a))))
    counts["pairs"] = len(rows)
    return pd.DataFrame(rows), counts


def _pair_row(prompt_id, chosen, rejected) -> dict:
    row = {"prompt_id": prompt_id}
    for side, completion in (("chosen", chosen), ("rejected", rejected)):
        for name in ("ids", "text", "truncated", "reward"):
            row[f"{side}_{name}"] = getattr(completion, name)
        row[f"reference_{side}_logps"] = completion.reference_logps
    return row
