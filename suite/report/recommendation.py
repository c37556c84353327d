"""Which policy to take, in one paragraph: what it is worth, what it cost, and what would change the choice."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from suite.analysis.choice import best_policy
from suite.analysis.records import PLACED, POINT, Results, per_prompt, wide
from suite.common.errors import UserError
from suite.maths.statistics import Interval, paired_difference
from suite.report.page import interval
from suite.report.tables import with_interval
from suite.study.plan import REFERENCE

FEWEST = 3
"""Prompts that a comparison needs."""


def recommendation(results: Results, *, max_kl: float = 10.0) -> str:
    """Of a study of one's own data: the best policy of each method, and among these the best.

    Where rewards and KLs of validation prompts are known they choose, among policies within `max_kl` nats; win rates have no
    validation prompts, and choose on the prompts that they are reported on, which flatters the choice.
    """
    shown, judged = wide(results.records, "test"), "win_rate" in set(results.records["metric"])
    rows = _by_win_rate(shown) if judged else _by_validation(results, shown, max_kl)
    if not rows:
        return ""
    best, start = rows[0], shown[_is_reference(shown)]
    others = [*rows[1:], *([] if judged else [row for _, row in start.iterrows()])]
    metric, values = ("win_rate", "win") if judged else ("reward", "reward")
    form = ".2f" if judged else ".3f"
    numbers = per_prompt(results.measurements, PLACED)[values]
    pairs = [(row, *_pair(numbers, best, row)) for row in others]
    pairs = [(row, mine, theirs) for row, mine, theirs in pairs if len(mine) >= FEWEST]
    level, limits = 1 - 0.05 / max(1, len(pairs)), (-1.0, 1.0) if judged else None
    gaps = [(row, paired_difference(mine, theirs, level=level, limits=limits)) for row, mine, theirs in pairs]
    from_start = [gap for row, gap in gaps if _is_reference(row)]
    shown_better = not from_start or from_start[0].low > 0
    spent = f", at {with_interval(best, 'kl', '.1f')} nats from the reference" if pd.notna(best.get("kl")) else ""
    lead = (
        f"**Take {_name(best)}**"
        if shown_better
        else f"**No policy is shown to be better than the reference.** First is {_name(best)}"
    )
    parts = [
        f"{lead}: {metric.replace('_', ' ')} {with_interval(best, metric, form)}{spent}, "
        f"on {best[f'{metric}_n']:.0f} test prompts, "
        + ("which also chose it and so flatter it" if judged else "which did not choose it")
        + f". It took {_cost(best, results)}."
    ]
    if listed := [f"{_name(row)} {interval(gap.mean, gap.low, gap.high, '+.3f')}" for row, gap in gaps]:
        parts.append(f"It less the others' best, same prompts, corrected for {len(gaps)}: {'; '.join(listed)}.")
    parts.append("What would change it: " + "; ".join(_doubts(best, gaps, judged, max_kl)) + ".")
    return " ".join(parts)


def _is_reference(row: Any) -> Any:
    """Whether a row, or each row of a table, is the reference's."""
    return (row["method"] == REFERENCE) | (row["setting"] == "(reference)")


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
    """The best policy of each method, the best of all first; the reference is always among the others."""
    ordered = shown.sort_values("win_rate", ascending=False).drop_duplicates("method")
    own = _is_reference(ordered)
    return [row for _, row in pd.concat([ordered[~own], ordered[own]]).iterrows()] if (~own).any() else []


def _pair(numbers: pd.Series, a: pd.Series, b: pd.Series) -> tuple[pd.Series, pd.Series]:
    left, right = (numbers.loc[tuple(row[PLACED])] for row in (a, b))
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
