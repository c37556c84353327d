"""How the records are read: one row per measurement → one row per policy → each method's hull. pandas alone, no torch."""

from __future__ import annotations

import pandas as pd

from suite.maths.frontier import hull_indices
from suite.maths.statistics import mean_interval

REFERENCE = "SFT (reference)"
POINT = ["method", "setting", "seed", "step"]
POLICY = ["method", "setting", "step"]
ABOUT = ("privileged", "kl_is_bound", "compute")


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over training seeds of `kl`, `reward` and `compute`: one row per (method, setting, step)."""
    columns = [name for name in ("kl", "reward", *ABOUT) if name in table]
    return table.groupby(POLICY, sort=False, as_index=False)[columns].mean()


def wide(records: pd.DataFrame, split: str) -> pd.DataFrame:
    """One row per policy evaluated on `split`: its metrics as columns, with `_low`, `_high` and `_n`."""
    rows = records[records["split"] == split]
    keys = [*POINT, *(name for name in (*ABOUT, "selected") if name in rows)]
    table = rows.pivot_table(
        index=keys, columns="metric", values=["value", "ci_low", "ci_high", "n"], sort=False, observed=True
    )
    suffix = {"value": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}
    table.columns = [f"{metric}{suffix[kind]}" for kind, metric in table.columns]
    return table.reset_index()


def chosen_policies(records: pd.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """(setting, step) of each method's policies on its hull, by growing KL, as validation prompts see it, seeds averaged.

    Of methods without validation points (Best-of-N) every policy counts: none is picked by its test reward.
    """
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    chosen = {}
    for method in dict.fromkeys(test["method"]):
        start, rows = (validation[validation["method"] == name] for name in (REFERENCE, method))
        if method == REFERENCE:
            continue
        if len(rows) and len(start):
            kept = hull_indices(rows["kl"], rows["reward"], reference_reward=float(start["reward"].iloc[0]))
            rows = rows.iloc[kept]
        else:
            rows = test[test["method"] == method].sort_values("kl")
        chosen[method] = [(row["setting"], int(row["step"])) for _, row in rows.iterrows()]
    return chosen


def with_reward_intervals(test: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """`reward_low`, `reward_high` of each row of `over_seeds`: 95 % over test prompts of the mean over seeds."""
    per_prompt = numbers[numbers["split"] == "test"].groupby([*POLICY, "prompt_id"])["reward"].mean()
    intervals = [mean_interval(per_prompt.loc[tuple(row[POLICY])]) for _, row in test.iterrows()]
    return test.assign(reward_low=[i.low for i in intervals], reward_high=[i.high for i in intervals])
