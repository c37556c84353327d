"""Do raters agree? Shares, Cohen's κ and win rates by rater, from tables of verdicts alone."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from suite.maths.statistics import Interval, clustered_share_interval

RESAMPLES = 2000
COLUMNS = ("what", "first", "second", "share", "low", "high", "kappa", "kappa_low", "kappa_high", "judgments", "prompts")
VALUES = {"policy": 1.0, "tie": 0.5, "opponent": 0.0}


class Agreement(NamedTuple):
    """How often two raters choose the same, by chance or not; 95 % intervals resample prompts."""

    share: Interval
    kappa: Interval
    pairs: int


def opinions(verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison that the rater decided: `prompt_id`, `nth` of the prompt, `choice` (1 policy, 0 opponent).

    Verdicts have `prompt_id`, `winner`, and `comparison` where a prompt has several or each was asked in two orders. Of two
    orders the mean counts; ties, contradictory orders and verdicts that are not valid are left out.
    """
    table = verdicts.assign(value=verdicts["winner"].map(VALUES))
    if "comparison" not in table:
        table["comparison"] = np.arange(len(table))
    table = table.groupby("comparison", sort=True).agg(
        prompt_id=("prompt_id", "first"), value=("value", lambda values: values.mean(skipna=False))
    )  # fmt: skip
    table["nth"] = table.groupby("prompt_id").cumcount()
    decided = table[table["value"].notna() & (table["value"] != 0.5)]
    return decided.assign(choice=(decided["value"] > 0.5).astype(int))[["prompt_id", "nth", "choice"]].reset_index(drop=True)


def agreement(a: ArrayLike, b: ArrayLike, prompts: Sequence[Any] | pd.Series, *, seed: int = 0) -> Agreement:
    """Share of equal choices and Cohen's κ = (p_o - p_e)/(1 - p_e), p_e from both raters' own rates (Cohen 1960).

    `a` and `b` are both raters' choices, 0 or 1, of shape (n,); intervals resample the `prompts` that they belong to. Raises
    ValueError if the shapes differ, there is no choice, or one is neither 0 nor 1.
    """
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.ndim != 1 or not len(x) or not np.isin([x, y], [0, 1]).all():
        raise ValueError(f"b: expected choices of 0 and 1 like a, got shapes {x.shape} and {y.shape}")
    _, clusters = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
    count = int(clusters.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    kappas = _kappa(x, y, drawn[:, clusters].astype(float))
    low, high = np.nanquantile(kappas, [0.025, 0.975]) if np.isfinite(kappas).any() else (np.nan, np.nan)
    low, high = (low, high) if low < high else (np.nan, np.nan)  # raters who always agree: how much they might not is not seen
    kappa = Interval(float(_kappa(x, y, np.ones((1, len(x))))[0]), float(low), float(high), count)
    return Agreement(clustered_share_interval((x == y).astype(float), clusters, seed=seed), kappa, len(x))


def _kappa(x: NDArray[Any], y: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """One κ per row of weights; NaN where both raters always choose one and the same."""
    total = weights.sum(1)
    same, of_x, of_y = (weights @ values.astype(float) / total for values in (x == y, x, y))
    chance = of_x * of_y + (1 - of_x) * (1 - of_y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (same - chance) / (1 - chance), np.nan)


def agreement_table(raters: Mapping[str, pd.DataFrame], groups: Mapping[str, str], *, seed: int = 0) -> pd.DataFrame:
    """Win rate of every group of raters, and agreement within and between groups.

    Between two groups every pair of raters counts on every comparison that both decided (people are pooled as in the paper).

    Args:
        raters: Rater → `opinions`.
        groups: Rater → its group: "humans", or the judge itself.
        seed: Of the resampling.

    Returns:
        Rows `what` ("win rate" or "agreement"), `first`, `second` (empty for win rates), `share`, `low`, `high`, `kappa`,
        `kappa_low`, `kappa_high`, `judgments` (pairs of them for agreement), `prompts`.
    """
    rows = []
    for group in dict.fromkeys(groups.values()):
        own = pd.concat([raters[name] for name in raters if groups[name] == group])
        if len(own):
            share = clustered_share_interval(own["choice"].astype(float), own["prompt_id"], seed=seed)
            rows.append({"what": "win rate", "first": group, "second": "", **_share(share), "judgments": len(own)})
    pairs: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for a, b in combinations(raters, 2):
        common = raters[a].merge(raters[b], on=["prompt_id", "nth"], suffixes=("_a", "_b"))
        first, second = sorted((groups[a], groups[b]), key=list(dict.fromkeys(groups.values())).index)
        if first != groups[a]:
            common = common.rename(columns={"choice_a": "choice_b", "choice_b": "choice_a"})
        pairs.setdefault((first, second), []).append(common)
    for (first, second), tables in pairs.items():
        common = pd.concat(tables)
        if len(common):
            found = agreement(common["choice_a"], common["choice_b"], common["prompt_id"], seed=seed)
            kappa = {"kappa": found.kappa.mean, "kappa_low": found.kappa.low, "kappa_high": found.kappa.high}
            names = {"what": "agreement", "first": first, "second": second}
            rows.append({**names, **_share(found.share), **kappa, "judgments": found.pairs})
    return pd.DataFrame(rows, columns=COLUMNS)


def _share(interval: Interval) -> dict[str, float]:
    return {"share": interval.mean, "low": interval.low, "high": interval.high, "prompts": interval.n}
