"""Who is better at equal KL: each method's frontier, chosen on validation prompts, measured on test prompts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from suite.analysis.records import chosen_policies, per_prompt
from suite.analysis.verdict import verdict_of
from suite.maths.frontier import Frontier, bootstrap, probability_of_improvement
from suite.maths.ideal_frontier import IdealFrontier, optimality
from suite.maths.statistics import bootstrap_p_value, holm, minimum_detectable_difference, t_interval
from suite.study.plan import REFERENCE

BUDGETS = (1.0, 3.0, 6.0, 10.0)
MAX_KL = 10.0
AREA = "0–10, mean"


def frontiers(records: pd.DataFrame, measurements: pd.DataFrame) -> dict[str, Frontier]:
    """Each method's frontier on test prompts, the reference first in each. Only training seeds that have all its policies."""
    means = per_prompt(measurements)[["reward", "kl"]]
    start = means.loc[REFERENCE].groupby("prompt_id", sort=False).mean().assign(kl=0.0)
    found = {}
    for method, policies in chosen_policies(records).items():
        of_method = means.loc[method]
        known = set(of_method.index.droplevel("prompt_id").unique())
        every = sorted(of_method.index.get_level_values("seed").unique())
        seeds = [seed for seed in every if all((setting, seed, step) in known for setting, step in policies)]
        tables = [
            [start, *(of_method.loc[(setting, seed, step)].reindex(start.index) for setting, step in policies)]
            for seed in seeds
        ]
        if seeds:
            reward, kl = (np.array([[table[name] for table in row] for row in tables]) for name in ("reward", "kl"))
            found[method] = Frontier(reward, kl)
    return found


def compare(
    found: Mapping[str, Frontier], *, against: str, budgets: Sequence[float] = BUDGETS, ideal: IdealFrontier | None = None
) -> pd.DataFrame:
    """Reward of every method at equal KL, and whether it differs from `against`.

    Intervals and p-values come from one bootstrap over prompts (paired) and training seeds. The intervals of differences are
    corrected by Bonferroni over all comparisons of this table, and decide (`suite.analysis.verdict`); p is corrected by Holm.

    Returns:
        One row per budget (the last: the mean over budgets up to 10 nats) and method: `kl_budget`, `method`, `nearest` and
        `reach` (KL of its first and its last policy, nats), `reward`, `low`, `high`, `seeds`, `n`; `seed_low`, `seed_high` (t
        over training seeds, NaN for one); `difference`, `difference_low`, `difference_high`, `p`, `p_holm`, `verdict`,
        `detectable` (the gap that as many prompts and seeds show with 80 % power at Bonferroni's level),
        `probability_of_improvement`; `optimality_low`, `optimality_high`.
    """
    if not found:
        return pd.DataFrame(columns=["kl_budget", "method", "nearest", "reach", "reward", "low", "high", "seeds", "n"])
    draws = bootstrap(found, budgets, max_kl=MAX_KL)
    base = found.get(against)
    level = 0.05 / max(1, (len(found) - 1) * (len(budgets) + 1))
    rows = []
    for column, budget in enumerate([*budgets, None]):
        for method, frontier in found.items():
            value = frontier.area(MAX_KL) if budget is None else float(frontier.at([budget])[0])
            low, high = np.quantile(draws[method][:, column], [0.025, 0.975])
            spent = frontier.kl.mean(axis=(0, 2))
            row = {
                "kl_budget": AREA if budget is None else f"{budget:g}", "method": method,
                "nearest": spent[1:].min(initial=np.inf), "reach": spent.max(), "reward": value, "low": low, "high": high,
                "seeds": frontier.reward.shape[0], "n": frontier.reward.shape[2],
            }  # fmt: skip
            if budget is not None:
                of_seeds = t_interval(frontier.by_seed([budget])[:, 0])
                row |= {"seed_low": of_seeds.low, "seed_high": of_seeds.high}
                if ideal is not None:
                    start = float(frontier.reward[:, 0].mean())
                    row["optimality_low"], row["optimality_high"] = optimality(value, start, ideal.at(budget))
            if base is not None and method != against:
                gap = draws[method][:, column] - draws[against][:, column]
                theirs = base.area(MAX_KL) if budget is None else float(base.at([budget])[0])
                row |= {"difference": value - theirs, "p": bootstrap_p_value(gap)}
                row["difference_low"], row["difference_high"] = np.quantile(gap, [level / 2, 1 - level / 2])
                row["verdict"] = verdict_of(row["difference_low"], row["difference_high"])
                if budget is not None:
                    mine, other = frontier.by_prompt(budget), base.by_prompt(budget)
                    of_seeds_alone = 0.0
                    if max(frontier.reward.shape[0], base.reward.shape[0]) > 1:
                        of_seeds_alone = max(0.0, float(gap.var() - (mine - other).var(ddof=1) / len(mine)))
                    row["detectable"] = minimum_detectable_difference(mine - other, level=level, seed_variance=of_seeds_alone)
                    row["probability_of_improvement"] = probability_of_improvement(mine, other)
            rows.append(row)
    table = pd.DataFrame(rows)
    if "p" in table:
        tested = table["p"].notna()
        table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"])
        table["verdict"] = table["verdict"].fillna("")
    return table
