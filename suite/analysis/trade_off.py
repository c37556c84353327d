"""Two rewards of every policy: means with intervals, which policies no other beats in both, differences on the same prompts."""

from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.records import POINT
from suite.analysis.verdict import word_of
from suite.maths.seeds_and_prompts import simultaneous
from suite.maths.statistics import mean_interval

ARM = "arm"
"""Which learned reward a policy was trained on, in words; a column beside `POINT`."""
WHO = [ARM, *POINT]
RUN = POINT[:3]
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


def differences(measurements: pd.DataFrame, against: str) -> pd.DataFrame:
    """The last policy of every run less that of a method, of the same seed and on the same prompts, in each of `BOTH`.

    Intervals are simultaneous for the whole table (`suite.maths.seeds_and_prompts`), and decide by the one rule
    (`suite.analysis.verdict`); rates were not searched, so there is no verdict on methods.

    Returns:
        One row per policy's `ARM`, `method`, `setting` and metric: `difference`, `low`, `high`, `p`, `verdict`, `seeds`, `n`.
    """
    steps = measurements.groupby([ARM, *RUN])["step"].transform("max")
    last = measurements[(measurements["step"] == steps) & measurements["metric"].isin(BOTH)]
    untrained = set(last.loc[last["step"] == 0, "method"])  # the reference, of which there is one for all seeds
    means = last.pivot_table(index=[ARM, *RUN, "prompt_id"], columns="metric", values="value")
    theirs = means[means.index.get_level_values("method") == against].droplevel([ARM, "method", "setting"])
    names, gaps = list[tuple[Any, ...]](), list[np.ndarray]()
    for (arm, method, setting), ours in means.groupby([ARM, "method", "setting"], sort=False):
        if method == against:
            continue
        own = ours.droplevel([ARM, "method", "setting"])
        if method in untrained:
            own = _for_every_seed(own, theirs)
        found = (own - theirs).dropna()
        if len(found) < len(theirs):  # a seed failed, and was named
            continue
        for metric in BOTH:
            names.append((arm, method, setting, metric))
            gaps.append(found[metric].unstack("prompt_id").to_numpy())
    together = simultaneous(gaps)
    rows = []
    for k, (name, gap) in enumerate(zip(names, gaps, strict=True)):
        low, high = float(together.low[k]), float(together.high[k])
        rows.append({
            **dict(zip((ARM, "method", "setting", "metric"), name, strict=True)), "difference": float(together.mean[k]),
            "low": low, "high": high, "p": float(together.p[k]), "seeds": gap.shape[0], "n": gap.shape[1],
            "verdict": word_of(low, high, seeds=gap.shape[0], searched=False),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _for_every_seed(own: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """The same numbers for each of another's seeds."""
    alone = own.droplevel("seed")
    return pd.concat(dict.fromkeys(theirs.index.unique("seed"), alone), names=["seed"])
