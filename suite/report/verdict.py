"""Who won, in words: the paired comparisons of one method with every other, as Markdown."""

import pandas as pd

from suite.analysis.equal_kl import AREA
from suite.analysis.verdict import TURNED, WORDS
from suite.report.page import interval, table
from suite.study.plan import REFERENCE


def verdict(comparison: pd.DataFrame, of: str) -> str:
    """One sentence on the whole, one line per method that `of` was compared with.

    Args:
        comparison: See `suite.analysis.equal_kl.compare`, against `of`.
        of: Name of the method.
    """
    if of not in set(comparison["method"]):
        return f"{of} left no policy that could be measured: there is nothing to compare."
    others = [method for method in dict.fromkeys(comparison["method"]) if method not in (of, REFERENCE)]
    if not others:
        return f"{of} was compared with nothing."
    tests, whole = int(comparison["p"].notna().sum()), comparison[comparison["kl_budget"] == AREA].set_index("method")
    parts = [f"{WORDS[TURNED[whole.loc[other, 'verdict']]]} {other}" for other in others]
    n, seeds = int(whole.loc[of, "n"]), int(whole.loc[of, "seeds"])
    lines = [
        f"**{of} is {_listed(parts)}** by mean reward over KL budgets from 0 to 10 nats (paired bootstrap over {n} prompts and "
        f"{seeds} training seed{'s' if seeds > 1 else ''}, intervals corrected for {tests} comparisons).",
        "",
        f"{of} minus the other, corrected intervals, same prompts:",
        "",
    ]
    rows = []
    for other in others:
        cells = {"against": other}
        for _, row in comparison[comparison["method"] == other].iterrows():
            budget = row["kl_budget"] if row["kl_budget"] == AREA else f"{row['kl_budget']} nats"
            value, low, high = (-row[name] + 0.0 for name in ("difference", "difference_high", "difference_low"))
            cells[budget] = f"{interval(value, low, high, '+.3f')} {TURNED[row['verdict']]}"
        rows.append(cells)
    lines.append(table(rows))
    spans = whole[["nearest", "reach"]].round(1)
    reaches = [
        f"{method} {spans.loc[method, 'nearest']} to {spans.loc[method, 'reach']}"
        if whole.loc[method, "reach"]
        else f"{method} none"
        for method in (of, *others)
    ]
    lines += [
        "",
        f"Policies, by their KL in nats: {', '.join(reaches)}. Before its first policy a method counts by its mixture with the "
        "reference, beyond its last by the last; what other settings would reach there is not known.",
    ]
    if seeds == 1:
        lines += ["", "One training seed: this holds for the policies at hand, and says little about other seeds."]
    return "\n".join(lines)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
