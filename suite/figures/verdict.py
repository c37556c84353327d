"""Who won, in words: the paired comparisons of one method with every other, as Markdown."""

from __future__ import annotations

import pandas as pd

from suite.comparisons import AREA
from suite.records import REFERENCE

WORDS = {"better": "worse than", "worse": "better than", "statistically tied": "statistically tied with"}
"""`suite.comparisons.compare` says how the other method fares; here the sentence is turned round."""


def verdict(comparison: pd.DataFrame, of: str) -> str:
    """One sentence on the whole, one line per method that `of` was compared with.

    Args:
        comparison: See `suite.comparisons.compare`, against `of`.
        of: Name of the method.
    """
    if of not in set(comparison["method"]):
        return f"{of} left no policy that could be measured: there is nothing to compare."
    others = [method for method in dict.fromkeys(comparison["method"]) if method not in (of, REFERENCE)]
    if not others:
        return f"{of} was compared with nothing."
    tests, whole = int(comparison["p"].notna().sum()), comparison[comparison["kl_budget"] == AREA].set_index("method")
    parts = [f"{WORDS[whole.loc[other, 'verdict']]} {other}" for other in others]
    n, seeds = int(whole.loc[of, "n"]), int(whole.loc[of, "seeds"])
    lines = [
        f"**{of} is {_listed(parts)}** by mean reward over KL budgets from 0 to 10 nats (paired bootstrap over {n} prompts and "
        f"{seeds} training seed{'s' if seeds > 1 else ''}, Holm over {tests} comparisons, 5 %).",
        "",
        f"{of} minus the other, 95 %, same prompts:",
        "",
    ]
    rows = []
    for other in others:
        cells = {"against": other}
        for _, row in comparison[comparison["method"] == other].iterrows():
            budget = row["kl_budget"] if row["kl_budget"] == AREA else f"{row['kl_budget']} nats"
            word = WORDS[row["verdict"]].split(" ")[0].replace("statistically", "tied")
            low, high = -row["difference_high"], -row["difference_low"]
            cells[budget] = f"{-row['difference'] + 0.0:+.3f} [{low + 0.0:+.3f}, {high + 0.0:+.3f}] {word}"
        rows.append(cells)
    lines.append(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    reaches = [f"{method} {whole.loc[method, 'nearest']:.1f} to {whole.loc[method, 'reach']:.1f}" for method in (of, *others)]
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
