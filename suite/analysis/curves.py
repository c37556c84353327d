"""Curves from their numbers per prompt: win rates with intervals, and policies beside each other on the same prompts."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.analysis.verdict import Verdict, verdict_of
from suite.evaluation.win_rate import NUMBERS, summary_of
from suite.maths.statistics import Interval, holm, paired_difference

AGAINST = "DPO"
FEWEST = 3
"""Prompts that a comparison needs."""
Pair = tuple[dict[str, Any], pd.Series, pd.Series]
"""What is compared, and the two sides by prompt."""


def win_rate_rows(rows: pd.DataFrame, *, seed: int) -> Iterator[dict[str, Any]]:
    """Records of one point: `metric` (win_rate, length_controlled, flips, longer_wins and counts n_…), `value`, `n`, interval.
    Raises ValueError if no comparison has a valid verdict in every order.
    """
    numbers = rows.pivot_table(index=["prompt_id", "sample"], columns="metric", values="value", sort=False).reset_index()
    result = summary_of(numbers.reindex(columns=["prompt_id", *NUMBERS]), seed=seed)
    for name, value in vars(result).items():
        row = {"split": "test", "metric": name, "unit": "share", "estimator": "clustered by prompt", "n": result.win_rate.n}
        if isinstance(value, Interval):
            yield {**row, "value": value.mean, "ci_low": value.low, "ci_high": value.high}
        elif value is not None and name.startswith("n_"):
            yield {**row, "value": value, "unit": "", "estimator": "counted"}


def compare_curves(measurements: pd.DataFrame, against: str = AGAINST) -> pd.DataFrame:
    """Every policy less that of `against` where both have the same prompts in the same panel at the same x and temperature.

    Returns:
        `panel`, `x`, `temperature`, `policy`, `difference`, `low`, `high` (Bonferroni over the rows of the panel: they decide),
        `n`, `p` (paired t-test, Holm over the same rows), `verdict`; empty without `against`.
    """
    metric, values = metric_of(measurements), _values(measurements)
    found = [_tested(panel, metric, _beside(rows, against)) for panel, rows in values.groupby("panel", sort=False)]
    found = [part for part in found if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def ends_of(measurements: pd.DataFrame, panel: str) -> pd.DataFrame:
    """Every policy at its first x of the panel of temperatures less that at its last; columns as of `compare_curves`."""
    rows = _values(measurements)
    rows = rows[(rows["panel"] == panel) & (panel == "temperature")]
    pairs = []
    for (method, setting), own in rows.groupby(["method", "setting"], sort=False):
        first, last = (own[own["x"] == x] for x in (own["x"].min(), own["x"].max()))
        x, end = first["x"].iloc[0], last["x"].iloc[0]
        policy = f"{method} {setting}".strip() + f", T = {x:g} minus T = {end:g}"
        if x < end:
            pairs.append(({"policy": policy, "x": x, "temperature": x}, _by_prompt(first), _by_prompt(last)))
    return _tested(panel, metric_of(measurements), pairs)


def metric_of(measurements: pd.DataFrame) -> str:
    """What is drawn: wins where there are any, else rewards."""
    return "win" if (measurements["metric"] == "win").any() else "reward"


def _values(measurements: pd.DataFrame) -> pd.DataFrame:
    """What is drawn, of test prompts."""
    return measurements[(measurements["metric"] == metric_of(measurements)) & (measurements["split"] == "test")]


def _by_prompt(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby("prompt_id", sort=False)["value"].mean()


def _beside(rows: pd.DataFrame, against: str) -> Iterator[Pair]:
    for (x, temperature), part in rows.groupby(["x", "temperature"], sort=True):
        by_policy = {name: _by_prompt(own) for name, own in part.groupby(["method", "setting"], sort=False)}
        base = [values for (method, _), values in by_policy.items() if method == against][:1]
        for (method, setting), values in by_policy.items() if base else ():
            if method != against:
                yield {"policy": f"{method} {setting}".strip(), "x": x, "temperature": temperature}, values, base[0]


def _tested(panel: Any, metric: str, pairs: Iterable[Pair]) -> pd.DataFrame:
    kept = [(about, *a.align(b, join="inner")) for about, a, b in pairs]
    kept = [(about, a, b) for about, a, b in kept if len(a) >= FEWEST]
    rows, limits = [], (-1.0, 1.0) if metric == "win" else None
    for about, a, b in kept:
        gap = paired_difference(a, b, level=1 - 0.05 / len(kept), limits=limits)
        rows.append({"panel": panel, **about, "difference": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n,
                     "p": p_value(a - b), "verdict": verdict_of(gap.low, gap.high)})  # fmt: skip
    return pd.DataFrame(rows).assign(p=holm([row["p"] for row in rows])) if rows else pd.DataFrame(rows)


def beats_half(low: float, high: float) -> Verdict:
    """Whether a win rate's interval lies above or below a half."""
    return verdict_of(low - 0.5, high - 0.5)


def p_value(differences: pd.Series) -> float:
    """Of "no difference", by the paired t-test; where all differences are equal, the chance of equal signs among equals."""
    if np.ptp(differences):
        return float(stats.ttest_1samp(differences, 0.0).pvalue)
    return 1.0 if differences.iloc[0] == 0 else min(1.0, 2.0 ** (1 - len(differences)))
