"""What a page says of who won: the sentences of the one rule, for every budget that a reader may choose."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from suite.analysis.curves import AGAINST, compare_curves
from suite.analysis.equal_compute import compare_within, compute_budgets
from suite.analysis.equal_kl import MAX_KL, SHARED, compare, frontiers
from suite.analysis.records import Results, wide
from suite.analysis.trade_off import ARM, differences
from suite.analysis.verdict import FEWEST_SEEDS, SAME, TURNED, WORDS
from suite.report.html.numbers import short
from suite.report.page import interval, plain
from suite.study.plan import REFERENCE

Budget = dict[str, Any]
ABSENT = "no policy there"
"""In place of a word, as `suite.analysis.equal_kl` says it."""


def budgets_of(results: Results) -> list[Budget]:
    """Every budget with its comparisons: KLs, then compute; of a study of curves its points.

    Returns:
        `id`, `group` (of the selector), `label`, `title`, `lead` (before the sentences), `n`, `seeds`, `verdict` (whether these
        are words on methods), `test` (of p), `kind` (of intervals), `own` (numbers of `against`), and `rows`: `method`,
        `sentence`, `word`, `difference`, `low`, `high` (those of `against` minus the other), `reward` and its interval, `p`,
        `detectable`.
    """
    panels = set(results.records["panel"])
    if panels != {"frontier"}:
        return _of_plane(results) if panels == {"plane"} else _of_curves(results)
    about, against = results.about, results.about.get("against", AGAINST)
    found = compare(
        frontiers(results.records, results.measurements), against=against, ideal=results.ideal_frontier,
        unsearched=about.get("unsearched", ()),
    )  # fmt: skip
    budgets = []
    for budget, rows in found.groupby("kl_budget", sort=False):
        whole = budget == SHARED
        budgets.append(_budget(
            f"kl-{budget}", "equal KL", "all shared KLs" if whole else f"{budget} nats",
            f"mean reward over the KLs up to {MAX_KL:g} nats at which both have policies" if whole
            else f"reward at a KL of {budget} nats from the reference", rows, against,
        ))  # fmt: skip
    budgets.sort(key=lambda budget: budget["id"] != f"kl-{SHARED}")
    amounts = compute_budgets(results.records, against=against)
    within = compare_within(
        results.records, results.measurements, amounts, against=against, unsearched=about.get("unsearched", ())
    )  # fmt: skip
    asked = results.records["method"].str.startswith("Best-of-N").any()
    left_out = " (without Best-of-N, which costs N completions each time it is asked)" if asked else ""
    for amount, rows in within.groupby("budget", sort=False) if len(within) else ():
        words, label = f"{amount / 1e6:.2g} million forward tokens", f"{amount / 1e6:.2g} M tokens"
        rows = rows.rename(columns={"reward_low": "low", "reward_high": "high"}).assign(n=about["test_prompts"])
        title = f"reward of the policy with the most validation reward within {words}, whatever its KL{left_out}"
        budgets.append(_budget(f"compute-{amount:g}", "equal compute", label, title, rows, against))
    return budgets


def _budget(name: str, group: str, label: str, title: str, rows: pd.DataFrame, against: str) -> Budget:
    own = rows[rows["method"] == against]
    seeds, n = int(rows["seeds"].min()), int(rows["n"].min())
    words = f"{seeds} training seed{'s' * (seeds > 1)}: these policies, not these methods."
    if own.empty:
        words, rows = f"{plain(against)} has no policy in these results: there is nothing to compare.", rows.iloc[:0]
    return {
        "id": name, "group": group, "label": label, "title": title, "lead": words if seeds < FEWEST_SEEDS or own.empty else "",
        "test": "max-T", "kind": "of 95 %, simultaneous for all methods and budgets of their group", "n": n, "seeds": seeds,
        "verdict": seeds >= FEWEST_SEEDS, "own": _numbers(own.iloc[0]) if len(own) else None,
        "rows": [_row(row, against, seeds) for _, row in rows.iterrows() if row["method"] not in (against, REFERENCE)],
    }  # fmt: skip


def _numbers(row: pd.Series) -> dict[str, Any]:
    return {"reward": [short(row.get(name)) for name in ("reward", "low", "high")]}


def _row(row: pd.Series, against: str, seeds: int) -> dict[str, Any]:
    known = pd.notna(row.get("difference"))
    gap = [short(-row[name] + 0.0) for name in ("difference", "difference_high", "difference_low")] if known else None
    turned: Mapping[Any, Any] = TURNED
    given = row.get("verdict")
    word = str(turned.get(given, given)) if isinstance(given, str) and given else ABSENT
    said = sentence(against, str(row["method"]), word, gap, seeds)
    if gap and row.get("kl_budget") == SHARED:
        said = f"{said[:-1]} (from {row['from']:.1f} to {row['to']:.1f} nats)."
    return {
        "method": plain(str(row["method"])), "word": word, "sentence": said, "difference": gap, **_numbers(row),
        "p": short(row.get("p")), "detectable": short(row.get("detectable")),
    }  # fmt: skip


def sentence(of: str, other: str, word: str, gap: list[float] | None, seeds: int) -> str:
    """One comparison in words, of methods where there are enough seeds, else of the policies at hand."""
    ours, theirs = plain(of), plain(other)
    if gap is None:
        why = "in some seed one of them has no policies on both sides of that KL" if word == ABSENT else word
        return f"{ours} is not compared with {theirs}: {why}."
    numbers = signed(gap)
    if word in WORDS:
        return f"{ours} is {WORDS[word]} {theirs}: {numbers}."  # type: ignore[index]
    if word == SAME:
        return f"{ours} is no other than {theirs}: all numbers are the same."
    return f"{ours} minus {theirs}: {numbers}" + ("." if seeds < FEWEST_SEEDS else f" ({word}).")


def signed(gap: list[float]) -> str:
    """A difference with its interval, with true minus signs."""
    value, low, high = gap
    return interval(value, low, high, "+.3f").replace("-", "−")


def _of_plane(results: Results) -> list[Budget]:
    """In each of two rewards, the last policies of their runs beside those of `against`."""
    against = results.about.get("against", AGAINST)
    if against not in set(results.measurements["method"]):
        return []
    found = differences(results.measurements.assign(**{ARM: ""}), against)
    found["method"] = [f"{method} {setting}".strip() for method, setting in zip(found["method"], found["setting"], strict=True)]
    found = found.rename(columns={"low": "difference_low", "high": "difference_high"})
    budgets = []
    for metric, rows in found.groupby("metric", sort=False):
        seeds = int(rows["seeds"].min())
        budgets.append({
            "id": str(metric), "group": "rewards", "label": str(metric), "title": f"in {metric}, of the last policies of runs",
            "lead": "Rates were not searched: these policies, not these methods.", "test": "max-T",
            "kind": "of 95 %, simultaneous for both rewards", "n": int(rows["n"].min()), "seeds": seeds,
            "verdict": False, "own": None, "rows": [_row(row, against, seeds) for _, row in rows.iterrows()],
        })  # fmt: skip
    return budgets


def _of_curves(results: Results) -> list[Budget]:
    against, shown = results.about.get("against", AGAINST), wide(results.records, "test")
    found = compare_curves(results.measurements, against)
    seeds, budgets = shown["seed"].nunique(), []
    lead = "These policies, not these methods." + _spent(shown)
    places = found.groupby(["panel", "x", "temperature"], sort=False) if len(found) else ()
    for (panel, x, temperature), rows in places:
        at = {"temperature": f"T = {x:g}", "best_of_n": f"N = {x:g}"}.get(str(panel), f"{x:g} of training, T = {temperature:g}")
        lines = [_of_curve(row, against) for row in rows.to_dict("records")]
        budgets.append({
            "id": f"{panel}-{x:g}-{temperature:g}", "group": str(panel).replace("_", " "), "label": at,
            "title": f"on the same prompts, at {at}", "lead": lead, "test": "paired t, Holm",
            "kind": "of 95 %, Bonferroni over their part of the figure",
            "n": int(rows["n"].min()), "seeds": int(seeds), "verdict": False,
            "own": None, "rows": lines,
        })  # fmt: skip
    return budgets


def _spent(shown: pd.DataFrame) -> str:
    """Whether the policies have gone equally far, where that is known."""
    known = shown["kl"].dropna() if "kl" in shown else pd.Series(dtype=float)
    if known.size < 2:
        return ""
    return f" Not at equal KL: they spend {known.min():.1f} to {known.max():.1f} nats, and one that may go farther gets more."


def _of_curve(row: Mapping[Any, Any], against: str) -> dict[str, Any]:
    """A comparison of two policies of one training seed: a difference, and no word on methods."""
    gap = [-row[name] + 0.0 for name in ("difference", "high", "low")]
    said = f"{plain(against)} minus {plain(row['policy'])}: {signed(gap)}."
    return {"method": plain(row["policy"]), "word": "", "sentence": said, "difference": [short(v) for v in gap],
            "reward": [None] * 3, "p": short(row["p"]), "detectable": None}  # fmt: skip
