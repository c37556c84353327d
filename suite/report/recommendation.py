"""Which policy to take, in one paragraph: what it is worth, what it cost, and what would change the choice."""

from collections.abc import Sequence

import pandas as pd

from suite.analysis.choice import best_policy
from suite.analysis.records import PLACE, POINT, Results, per_prompt, wide
from suite.common.errors import UserError
from suite.maths.statistics import Interval, paired_difference
from suite.report.page import interval
from suite.report.tables import with_interval
from suite.study.plan import REFERENCE

KEYS = [*POINT, *PLACE]


def recommendation(results: Results, *, max_kl: float = 10.0) -> str:
    """Of a study of one's own data: the best policy of each method, and among these the best.

    Where rewards and KLs of validation prompts are known they choose, among policies within `max_kl` nats; win rates have no
    validation prompts, and choose on the prompts that they are reported on, which flatters the choice.
    """
    shown, judged = wide(results.records, "test"), "win_rate" in set(results.records["metric"])
    rows = _by_win_rate(shown) if judged else _by_validation(results, shown, max_kl)
    if not rows:
        return ""
    best, others = rows[0], rows[1:]
    metric, values = ("win_rate", "win") if judged else ("reward", "reward")
    form = ".2f" if judged else ".3f"
    start = shown[shown["method"] == REFERENCE] if not judged else shown.iloc[:0]
    beside = f" (the reference {with_interval(start.iloc[0], metric, form)})" if len(start) else ""
    spent = f", at {with_interval(best, 'kl', '.1f')} nats from the reference" if pd.notna(best.get("kl")) else ""
    parts = [
        f"**Take {_name(best)}**: {metric.replace('_', ' ')} {with_interval(best, metric, form)}{beside}{spent}, on "
        f"{best[f'{metric}_n']:.0f} test prompts"
        + (", which also chose it and so flatter it" if judged else ", which did not choose it")
        + f". It took {_cost(best, results)}."
    ]
    numbers = per_prompt(results.measurements, KEYS)[values]
    gaps = [
        (row, paired_difference(*_pair(numbers, best, row), level=1 - 0.05 / len(others)))
        for row in others if set(numbers.loc[tuple(best[KEYS])].index) & set(numbers.loc[tuple(row[KEYS])].index)
    ]  # fmt: skip
    listed = [f"{_name(row)} {interval(gap.mean, gap.low, gap.high, '+.3f')}" for row, gap in gaps]
    if listed:
        parts.append(f"It less the best of every other method, same prompts, corrected for {len(gaps)}: {'; '.join(listed)}.")
    parts.append("What would change it: " + "; ".join(_doubts(best, gaps, judged, max_kl)) + ".")
    return " ".join(parts)


def _by_validation(results: Results, shown: pd.DataFrame, max_kl: float) -> list[pd.Series]:
    """The best policy of each method on test prompts, the one with the most validation reward first."""
    found = []
    for method in dict.fromkeys(results.records["method"]):
        if method != REFERENCE:
            try:
                choice = best_policy(results, max_kl=max_kl, method=method)
            except UserError:  # Best-of-N, or nothing so near
                continue
            point = [choice.method, choice.setting, choice.seed, choice.step]
            found.append((choice.validation["reward"], shown[(shown[POINT] == point).all(axis=1)].iloc[0]))
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


def _by_win_rate(shown: pd.DataFrame) -> list[pd.Series]:
    """The best policy of each method, the best of all first."""
    ordered = shown.sort_values("win_rate", ascending=False).drop_duplicates("method")
    return [row for _, row in ordered.iterrows()]


def _pair(numbers: pd.Series, a: pd.Series, b: pd.Series) -> tuple[pd.Series, pd.Series]:
    left, right = (numbers.loc[tuple(row[KEYS])] for row in (a, b))
    return left.align(right, join="inner")


def _name(row: pd.Series) -> str:
    at = "" if row["temperature"] == 1 else f" at temperature {row['temperature']:g}"
    step = f", step {row['step']:.0f}" if row["step"] else ""
    return f"{row['method']} {row['setting']}".strip() + step + at


def _cost(row: pd.Series, results: Results) -> str:
    same = (results.records[POINT] == row[POINT].to_numpy()).all(axis=1)
    seconds = results.records.loc[same, "run_seconds"].max() if "run_seconds" in results.records else float("nan")
    made = f"{row['compute'] / 1e6:.2g} million forward tokens" if row["compute"] else "no training"
    return made + (f" ({seconds:.0f} s of training)" if pd.notna(seconds) and row["compute"] else "")


def _doubts(best: pd.Series, gaps: Sequence[tuple[pd.Series, Interval]], judged: bool, max_kl: float) -> list[str]:
    open_ones = [_name(row) for row, gap in gaps if gap.low <= 0]
    doubts = [f"more prompts ({', '.join(open_ones)} not told apart from it)"] if open_ones else []
    if not judged and pd.notna(best.get("kl")):
        doubts.append(f"a KL budget below {best['kl']:.1f} nats (up to {max_kl:g} were allowed)")
    if judged:
        doubts.append("another judge")
    return [*doubts, "another training seed, whose spread one seed does not show"]
