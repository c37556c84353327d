"""Who is better within a budget of compute: each method's best policy by validation reward, with its test reward."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from suite.analysis.records import POLICY, over_seeds, per_prompt, wide
from suite.analysis.verdict import verdict_of
from suite.maths.statistics import mean_interval, paired_difference
from suite.study.plan import REFERENCE


def compute_budgets(records: pd.DataFrame, *, against: str = "DPO") -> list[float]:
    """A half of, once, twice and four times what one whole run of `against` (else of the costliest method) takes."""
    table = wide(records, "test")
    costs = table[table["method"] == against]["compute"] if (table["method"] == against).any() else table["compute"]
    return [float(f"{factor * costs.max():.2g}") for factor in (0.5, 1.0, 2.0, 4.0)]


def compare_within(
    records: pd.DataFrame, measurements: pd.DataFrame, budgets: Sequence[float], *, against: str = "DPO"
) -> pd.DataFrame:
    """The policy of each method with the most validation reward within a budget of compute, with its test reward.

    Choice on validation prompts, report on test prompts, both averaged over training seeds; differences from `against` are
    paired by prompt, their intervals corrected by Bonferroni over all comparisons of the table, conditional on the trained
    policies. Best-of-N is left out: it is paid for when it is asked.

    Args:
        records, measurements, budgets: See `suite.analysis.records.Results`; forward tokens.

    Returns:
        One row per budget and method: `budget`, `method`, `policy` (NaN: none within the budget), `reward`, `reward_low`,
        `reward_high`, `kl`, `kl_low`, `kl_high`; `difference`, `difference_low`, `difference_high`, `verdict`.
    """
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    test = test[test["kl_is_bound"] == 0]
    shown = per_prompt(measurements, keys=POLICY)
    methods = [method for method in dict.fromkeys(test["method"]) if method != REFERENCE]
    chosen = {(budget, method): _best_within(validation, test, method, budget) for budget in budgets for method in methods}
    rivals: dict[float, Any] = {budget: chosen.get((budget, against)) for budget in budgets}
    tested = [key for key, row in chosen.items() if key[1] != against and row is not None and rivals[key[0]] is not None]
    level = 1 - 0.05 / max(1, len(tested))
    rows = []
    for (budget, method), row in chosen.items():
        entry = {"budget": budget, "method": method}
        rows.append(entry)
        if row is None:
            continue
        values = shown.loc[tuple(row[POLICY])]
        entry["policy"] = f"{row['setting']} step {int(row['step'])}".strip()
        for name in ("reward", "kl"):
            entry[name], entry[f"{name}_low"], entry[f"{name}_high"], _ = mean_interval(values[name])
        if (budget, method) in tested:
            theirs = shown.loc[tuple(rivals[budget][POLICY])]["reward"].reindex(values.index)
            gap = paired_difference(values["reward"], theirs, level=level)
            entry |= {"difference": gap.mean, "difference_low": gap.low, "difference_high": gap.high,
                      "verdict": verdict_of(gap.low, gap.high)}  # fmt: skip
    return pd.DataFrame(rows)


def _best_within(validation: pd.DataFrame, test: pd.DataFrame, method: str, budget: float) -> pd.Series | None:
    """The test row of the method's best policy within the budget of compute, as validation prompts see it."""
    allowed = validation[(validation["method"] == method) & (validation["compute"] <= budget)]
    if allowed.empty:
        return None
    chosen = allowed.loc[allowed["reward"].idxmax()]
    return test[(test[POLICY] == chosen[POLICY].to_numpy()).all(axis=1)].iloc[0]
