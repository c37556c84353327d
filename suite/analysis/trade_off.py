"""Two rewards of every policy: means with intervals, which policies no other beats in both, differences on the same prompts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from suite.analysis.records import POINT
from suite.maths.statistics import mean_interval, paired_difference

ARM = "arm"
"""Which learned reward a policy was trained on, in words; a column beside `POINT`."""
WHO = [ARM, *POINT]
BOTH = ("helpfulness", "safety")


def points(measurements: pd.DataFrame) -> pd.DataFrame:
    """One row per policy: of each of `BOTH`, `kl` and `tokens` the mean over test prompts, `…_low`, `…_high` (95 %), `n`
    prompts; and `best`: no other policy's means are at least as good in both and better in one.

    `measurements` has one row per sample and metric: `WHO`, `prompt_id`, `metric`, `value`.
    """
    rows = []
    for who, part in measurements.groupby(WHO, sort=False):
        row = dict(zip(WHO, who, strict=True))
        for metric in (*BOTH, "kl", "tokens"):
            by_prompt = part[part["metric"] == metric].groupby("prompt_id")["value"].mean()
            found = mean_interval(by_prompt)
            row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high, "n": found.n}
        rows.append(row)
    found = pd.DataFrame(rows)
    return found.assign(best=undominated(found[list(BOTH)].to_numpy()))


def undominated(values: np.ndarray) -> list[bool]:
    """Of rows of (first, second) reward: that no other row is at least as large in both and larger in one."""
    return [not ((values >= row).all(axis=1) & (values > row).any(axis=1)).any() for row in values]


def differences(measurements: pd.DataFrame, who: Sequence[tuple], against: tuple) -> pd.DataFrame:
    """Each of some policies less another, in each of `BOTH`, on the same prompts; 95 % intervals for all of the table together
    (Bonferroni). The columns are `WHO`, `metric`, `difference`, `low`, `high`, `n`.
    """
    tables = {
        key: part.pivot_table(index="prompt_id", columns="metric", values="value")
        for key, part in measurements.groupby(WHO, sort=False)
    }
    level = 1 - 0.05 / max(1, len(BOTH) * len(who))
    rows = []
    for key in who:
        for metric in BOTH:
            ours, theirs = tables[key][metric].align(tables[against][metric], join="inner")
            found = paired_difference(ours, theirs, level=level)
            rows.append({**dict(zip(WHO, key, strict=True)), "metric": metric, "difference": found.mean, "low": found.low,
                         "high": found.high, "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)
