"""Is a frontier still moving? What the second half of every run has changed of it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from suite.analysis.equal_kl import BUDGETS, frontiers
from suite.maths.seeds_and_prompts import estimate

RUN = ["method", "setting", "seed"]


def last_doubling(records: pd.DataFrame, measurements: pd.DataFrame, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Each trained method's frontier less that of the policies which its runs had kept at half their length, at equal KL.

    Args:
        records, measurements, budgets: See `suite.analysis.records.Results`; nats.

    Returns:
        One row per method and budget at which the halves have policies on either side in every seed (NaN where they have not):
        `method`, `kl_budget`, `difference`, `low`, `high` (95 % over prompts and seeds, each on its own), `reach_half`,
        `reach` (KL in nats that every seed has by then), `seeds`.
    """
    last = records.groupby(RUN)["step"].transform("max")
    early = records[(2 * records["step"] <= last) | (last == 0)]
    halves, wholes = frontiers(early, measurements), frontiers(records, measurements)
    trained = records.loc[last > 0, "method"].unique()
    rows = []
    for method in (name for name in trained if name in halves):
        half, whole = halves[method], wholes[method]
        seeds = [seed for seed in half.seeds if seed in whole.seeds]
        half, whole = half.of(seeds), whole.of(seeds)
        for budget in budgets:
            row = {
                "method": method,
                "kl_budget": budget,
                "reach_half": half.span[1],
                "reach": whole.span[1],
                "seeds": len(seeds),
            }
            rows.append(row)
            if half.span[0] <= budget <= half.span[1]:
                found = estimate((whole.by_prompt([budget]) - half.by_prompt([budget]))[:, 0][None])
                width = float(stats.t.ppf(0.975, found.df[0]) * np.sqrt(found.variance[0]))
                mean = float(found.mean[0])
                row |= {"difference": mean, "low": mean - width, "high": mean + width}
    return pd.DataFrame(rows, columns=["method", "kl_budget", "difference", "low", "high", "reach_half", "reach", "seeds"])
