"""Completions with gold rewards → preference pairs and rankings."""

from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from suite.data.parquet import pair_row

Labels = Literal["hard", "bradley_terry"]


def label_pairs(
    completions: pd.DataFrame, *, labels: Labels, scale: float, seed: int, noise: float = 0.0
) -> tuple[pd.DataFrame, dict[str, int]]:
    """All pairs of completions of each prompt (6 of 4), labelled by the gold reward.

    Identical completions and, with hard labels, equal rewards are dropped and counted, never broken by order.

    Args:
        completions: Columns `prompt_id`, `sample`, `ids`, `text`, `truncated`, `reward`, `reference_logps`.
        labels: `hard`: the higher gold reward wins (the DPO paper). `bradley_terry`: a wins with probability
            σ(scale·(r_a - r_b)), drawn from `seed`; the scale is in 1 / reward units.
        noise: Each label is then turned with this probability, drawn from `seed` too: the ε of cDPO and robust DPO.

    Returns:
        The pairs (`suite.data.parquet.pair_row`), and the counts `pairs`, `turned`, `dropped_identical`, `dropped_tied`.

    Raises:
        ValueError: Unknown `labels`, `scale` ≤ 0, or `noise` not in [0, 0.5).
    """
    _check(labels, scale)
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise: expected a share in [0, 0.5), got {noise}")
    rng, turns = np.random.default_rng(seed), np.random.default_rng([seed, 2])
    counts, rows = {"pairs": 0, "turned": 0, "dropped_identical": 0, "dropped_tied": 0}, []
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
                turned = bool(turns.random() < noise)
                counts["turned"] += turned
                a_wins ^= turned
                rows.append(pair_row(prompt_id, *((a, b) if a_wins else (b, a))))
    counts["pairs"] = len(rows)
    return pd.DataFrame(rows), counts


def label_rankings(
    completions: pd.DataFrame, *, labels: Labels, scale: float, seed: int
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One ranking per prompt of its distinct completions, best first, by the gold reward.

    Of identical completions one is kept; with hard labels, completions of equal reward are all dropped; rankings of fewer than
    two are dropped. All is counted.

    The arguments are those of `label_pairs`; with `bradley_terry` the order is drawn from the Plackett-Luce model of scores
    scale·r, whose pairs are Bradley-Terry.

    Returns:
        One row per ranked completion (`prompt_id`, `rank` from 0, `ids`, `text`, `truncated`, `reward`, `reference_logps`), and
        the counts `rankings`, `ranked_identical`, `ranked_tied`, `rankings_too_short`.
    """
    _check(labels, scale)
    rng = np.random.default_rng([seed, 1])
    counts = {"rankings": 0, "ranked_identical": 0, "ranked_tied": 0, "rankings_too_short": 0}
    columns = ["prompt_id", "ids", "text", "truncated", "reward", "reference_logps"]
    kept = []
    for _, group in completions[columns].groupby("prompt_id", sort=False):
        distinct = group[~group["ids"].map(tuple).duplicated()]
        counts["ranked_identical"] += len(group) - len(distinct)
        score = distinct["reward"]
        if labels == "hard":
            untied = distinct[~score.duplicated(keep=False)]
            counts["ranked_tied"] += len(distinct) - len(untied)
            distinct, score = untied, untied["reward"]
        else:  # the order of scores with Gumbel noise is a Plackett-Luce draw
            score = scale * score + rng.gumbel(size=len(score))
        if len(distinct) < 2:
            counts["rankings_too_short"] += 1
            continue
        best_first = distinct.loc[score.sort_values(ascending=False).index]
        kept.append(best_first.assign(rank=range(len(best_first))))
    counts["rankings"] = len(kept)
    return pd.concat(kept) if kept else pd.DataFrame(columns=[*columns, "rank"]), counts


def _check(labels: str, scale: float) -> None:
    if labels not in ("hard", "bradley_terry"):
        raise ValueError(f"labels: expected 'hard' or 'bradley_terry', got {labels!r}")
    if not scale > 0:
        raise ValueError(f"scale: expected a number > 0, got {scale}")
