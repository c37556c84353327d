"""Who won, in words: the paired comparisons of one method with every other, as Markdown."""

import pandas as pd

from suite.analysis.equal_kl import SHARED
from suite.analysis.verdict import FEWEST_SEEDS, SAME, TURNED, WORDS
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
    whole = comparison[comparison["kl_budget"] == SHARED].set_index("method")
    n, seeds = int(whole.loc[of, "n"]), int(whole.loc[of, "seeds"])
    tests = int(comparison["p"].notna().sum()) if "p" in comparison else 0
    rows = [_gaps(comparison[comparison["method"] == other], other) for other in others]
    spans = [f"{method} {_span(whole.loc[method])}" for method in (of, *others)]
    lines = [
        _sentence(of, whole, others, seeds)
        + f" (mean reward over the KLs at which both have policies; {n} prompts, {seeds} training seed{'s' * (seeds > 1)}, "
        f"paired, intervals simultaneous for {tests} comparisons).",
        "", f"{of} minus the other:", "", table(rows), "",
        f"Policies, by their KL in nats: {', '.join(spans)}. Where one of two methods has none, they are not compared.",
    ]  # fmt: skip
    if seeds < FEWEST_SEEDS:
        lines += ["", "Another seed draws other preferences, another reward model and another policy; what it would say is not "
                  f"known. A verdict on methods takes {FEWEST_SEEDS} seeds or more."]  # fmt: skip
    return "\n".join(lines)


def _sentence(of: str, whole: pd.DataFrame, others: list[str], seeds: int) -> str:
    """Words on methods, or on policies where the seeds are too few."""
    if seeds < FEWEST_SEEDS:
        parts = [f"{_signed(whole.loc[other])} {other}" for other in others]
        return f"**These policies, not these methods**: {of} has {_listed(parts)}"
    parts = []
    for other in others:
        word = whole.loc[other, "verdict"]
        if word == SAME:
            parts.append(f"no other than {other} (all numbers are the same)")
        else:
            parts.append(f"{WORDS[TURNED[word]]} {other}" if word in WORDS else f"not compared with {other} ({word})")
    return f"**{of} is {_listed(parts)}**"


def _signed(row: pd.Series) -> str:
    return "no KL in common with" if pd.isna(row.get("difference")) else f"{_turned(row)} beside"


def _turned(row: pd.Series) -> str:
    value, low, high = (-row[name] + 0.0 for name in ("difference", "difference_high", "difference_low"))
    return interval(value, low, high, "+.3f")


def _gaps(rows: pd.DataFrame, other: str) -> dict[str, str]:
    """One method's line of the table: its differences by budget, turned to the other's side."""
    cells = {"against": other}
    for _, row in rows.iterrows():
        budget = "shared KLs" if row["kl_budget"] == SHARED else f"{row['kl_budget']} nats"
        word = TURNED.get(row["verdict"], row["verdict"])
        cells[budget] = word if pd.isna(row.get("difference")) else f"{_turned(row)} {word}"
    return cells


def _span(row: pd.Series) -> str:
    return f"{row['nearest']:.1f} to {row['reach']:.1f}" if row["nearest"] <= row["reach"] else "none"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
