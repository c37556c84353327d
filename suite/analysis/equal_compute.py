"""Who is better within a budget of compute: each method's best policy by validation reward, with its test reward."""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.analysis.records import POINT, per_prompt, wide
from suite.analysis.verdict import word_of
from suite.maths.seeds_and_prompts import estimate, simultaneous
from suite.study.plan import REFERENCE


def compute_budgets(records: pd.DataFrame, *, against: str = "DPO") -> list[float]:
    """A half of, once, twice and four times what one whole run of `against` (else of the costliest method) takes."""
    table = wide(records, "test")
    costs = table[table["method"] == against]["compute"] if (table["method"] == against).any() else table["compute"]
    return [float(f"{factor * costs.max():.2g}") for factor in (0.5, 1.0, 2.0, 4.0)]


def compare_within(
    records: pd.DataFrame, measurements: pd.DataFrame, budgets: Sequence[float], *, against: str = "DPO",
    unsearched: Container[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """The policy of each method with the most validation reward within a budget of compute, with its test reward.

    Choice on validation prompts, report on test prompts, of every training seed its own; differences from `against` are paired
    by seed and prompt, their intervals simultaneous over all comparisons of the table. Best-of-N is left out: it is paid for
    when it is asked.

    Args:
        records, measurements, budgets: See `suite.analysis.records.Results`; forward tokens.
        against, unsearched: As for `suite.analysis.equal_kl.compare`.

    Returns:
        One row per budget and method: `budget`, `method`, `seeds` (that all methods have), `policy` of the first seed (NaN:
        none within the budget in some seed), `reward`, `reward_low`, `reward_high`, `kl`, `kl_low`, `kl_high`; `difference`,
        `difference_low`, `difference_high`, `verdict`.
    """
    validation, test = (wide(records, split) for split in ("validation", "test"))
    validation, test = (table[table["method"] != REFERENCE] for table in (validation, test))
    methods = list(dict.fromkeys(test.loc[test["kl_is_bound"] == 0, "method"]))
    seeds = sorted(set.intersection(*(set(test.loc[test["method"] == m, "seed"]) for m in methods))) if methods else []
    shown = per_prompt(measurements)
    rows: list[dict[str, Any]] = []
    tested: list[tuple[dict[str, Any], np.ndarray]] = []
    for budget in budgets:
        values = {method: _within(validation, shown, method, budget, seeds) for method in methods}
        for method, found in values.items():
            rows.append(row := {"budget": budget, "method": method, "seeds": len(seeds)})
            if found is None:
                continue
            row["policy"], numbers = found
            for name, of_metric in numbers.items():
                alone = estimate(of_metric[None])
                half = float(stats.t.ppf(0.975, alone.df[0]) * np.sqrt(alone.variance[0]))
                row |= {name: float(alone.mean[0]), f"{name}_low": float(alone.mean[0]) - half,
                        f"{name}_high": float(alone.mean[0]) + half}  # fmt: skip
            theirs = values.get(against)
            if method != against and theirs is not None:
                tested.append((row, numbers["reward"] - theirs[1]["reward"]))
    if tested:
        together = simultaneous([gap for _, gap in tested])
        for k, (row, _) in enumerate(tested):
            low, high = float(together.low[k]), float(together.high[k])
            searched = row["method"] not in unsearched and against not in unsearched
            row |= {"difference": float(together.mean[k]), "difference_low": low, "difference_high": high,
                    "verdict": word_of(low, high, seeds=len(seeds), searched=searched)}  # fmt: skip
    return pd.DataFrame(rows)


def _within(
    validation: pd.DataFrame, shown: pd.DataFrame, method: str, budget: float, seeds: Sequence[int]
) -> tuple[str, dict[str, np.ndarray]] | None:
    """The first seed's choice in words, and `reward` and `kl` of every seed's choice (seeds, prompts); None where a seed has
    no policy within the budget.
    """
    allowed = validation[(validation["method"] == method) & (validation["compute"] <= budget)]
    chosen = [allowed.loc[rows["reward"].idxmax()] for seed in seeds if len(rows := allowed[allowed["seed"] == seed])]
    if not chosen or len(chosen) < len(seeds):
        return None
    tables = [shown.loc[tuple(row[POINT])] for row in chosen]
    tables = [table.reindex(tables[0].index) for table in tables]
    name = f"{chosen[0]['setting']} step {int(chosen[0]['step'])}".strip()
    return name, {metric: np.array([table[metric] for table in tables]) for metric in ("reward", "kl")}
