"""Who is better at equal KL: each method's frontier, chosen on validation prompts, measured on test prompts."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.analysis.records import Results, chosen_policies, per_prompt
from suite.analysis.verdict import word_of
from suite.maths.frontier import Frontier, area_grid, probability_of_improvement
from suite.maths.ideal_frontier import IdealFrontier, optimality
from suite.maths.seeds_and_prompts import estimate, simultaneous
from suite.maths.statistics import ROUNDING
from suite.study.plan import REFERENCE

BUDGETS = (1.0, 3.0, 6.0, 10.0)
MAX_KL = 10.0
SHARED = "shared"
"""In place of a budget: the mean over all KLs up to `MAX_KL` at which both methods have policies."""
POWER = 0.8


def frontiers(records: pd.DataFrame, measurements: pd.DataFrame, metric: str = "reward") -> dict[str, Frontier]:
    """Each method's frontier on test prompts, the reference first in each; of training seeds whose policies are all there. The
    policies are those that are chosen by reward, whatever the `metric`.
    """
    means = per_prompt(measurements)
    if metric not in means:
        return {}
    means = means[[metric, "kl"]].rename(columns={metric: "reward"})
    means = means[means["reward"].notna()]
    if REFERENCE not in means.index.get_level_values("method"):
        return {}
    start = means.loc[REFERENCE].groupby("prompt_id", sort=False).mean().assign(kl=0.0)
    known = set(means.index.droplevel("prompt_id").unique())
    found = {}
    for method, of_seeds in chosen_policies(records).items():
        tables = {
            seed: [start, *(means.loc[(method, setting, seed, step)].reindex(start.index) for setting, step in policies)]
            for seed, policies in sorted(of_seeds.items())
            if all((method, setting, seed, step) in known for setting, step in policies)
        }
        if tables:
            reward, kl = ([np.array([t[name] for t in row]) for row in tables.values()] for name in ("reward", "kl"))
            found[method] = Frontier(list(tables), reward, kl)
    return found


def lines_of(results: Results) -> pd.DataFrame:
    """The frontiers of a study as lines, `method`, `metric`, `kl` [nats] and `value`, between the first and the last KL at
    which all its training seeds have policies.
    """
    parts = []
    for metric in ("reward", "log_odds"):
        for method, frontier in frontiers(results.records, results.measurements, metric).items():
            first, last = frontier.span
            if first < last:
                at = np.linspace(first, last, 60)
                parts.append(pd.DataFrame({"method": method, "metric": metric, "kl": at, "value": frontier.at(at)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["method", "metric", "kl", "value"])


def band(frontier: Frontier, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of the seeds' frontiers at each KL of `at` [nats] and its 95 % interval over prompts, and over seeds where there
    are several; three arrays of its shape.
    """
    found = estimate(frontier.by_prompt(at).swapaxes(0, 1))
    half = stats.t.ppf(0.975, found.df) * np.sqrt(found.variance)
    return found.mean, found.mean - half, found.mean + half


def compare(
    found: Mapping[str, Frontier], *, against: str, budgets: Sequence[float] = BUDGETS, ideal: IdealFrontier | None = None,
    unsearched: Container[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Reward of every method at equal KL, and whether it differs from `against`.

    A budget is compared where both methods have policies on either side of it in every training seed that all methods share.
    Differences are paired by seed and by prompt; their intervals are simultaneous over all comparisons of this table
    (`suite.maths.seeds_and_prompts`), and decide (`suite.analysis.verdict`).

    Args:
        found, against, budgets, ideal: See `frontiers`; who the others are compared with; nats; the limit of all.
        unsearched: Methods whose settings were not searched as the others' were: shown, not judged.

    Returns:
        One row per budget (the last: `SHARED`) and method: `kl_budget`, `method`, `nearest` and `reach` (nats between which all
        its seeds have policies), `reward`, `low`, `high` (95 % on its own; over prompts for one seed), `seeds`, `n`;
        `difference`, `difference_low`, `difference_high`, `p` (family-wise, by max-T), `verdict` (or why there is none),
        `detectable` (the gap that as many prompts and seeds find with 80 % power), `probability_of_improvement`;
        `optimality_low`, `optimality_high`.
    """
    if not found:
        return pd.DataFrame(columns=["kl_budget", "method", "nearest", "reach", "reward", "seeds", "n", "verdict"])
    seeds = sorted(set.intersection(*(set(frontier.seeds) for frontier in found.values())))
    own = {name: frontier.of(seeds) if seeds else frontier for name, frontier in found.items()}
    rows = [_alone(own[name], name, budget, ideal) for budget in (*budgets, None) for name in found]
    tested: list[tuple[dict[str, Any], np.ndarray, np.ndarray]] = []
    if (base := own.get(against)) is not None:
        for row in rows:
            if row["method"] != against:
                _beside(row, own[row["method"]], base, seeds, tested)
    if tested:
        together = simultaneous([mine - theirs for _, mine, theirs in tested])
        for k, (row, mine, theirs) in enumerate(tested):
            low, high = float(together.low[k]), float(together.high[k])
            row |= {"difference": float(together.mean[k]), "difference_low": low, "difference_high": high}
            row["p"] = float(together.p[k])
            row["probability_of_improvement"] = probability_of_improvement(mine.mean(axis=0), theirs.mean(axis=0))
            row["detectable"] = float((together.quantile[k] + stats.norm.ppf(POWER)) * together.error[k])
            searched = row["method"] not in unsearched and against not in unsearched
            same = np.array_equal(mine, theirs)
            row["verdict"] = word_of(low, high, seeds=len(seeds), searched=searched, same=same)
    return pd.DataFrame(rows)


def _alone(frontier: Frontier, name: str, budget: float | None, ideal: IdealFrontier | None) -> dict[str, Any]:
    """What is known of one method at a budget; of `SHARED` nothing, since that is another range for each pair of methods."""
    nearest, reach = frontier.span
    row: dict[str, Any] = {
        "kl_budget": SHARED if budget is None else f"{budget:g}", "method": name, "nearest": nearest, "reach": reach,
        "seeds": len(frontier.seeds), "n": frontier.prompts, "verdict": "",
    }  # fmt: skip
    if budget is not None:
        found = estimate(frontier.by_prompt([budget])[:, 0][None])
        value, error = float(found.mean[0]), np.sqrt(found.variance[0])
        half = float(stats.t.ppf(0.975, found.df[0]) * error) if error > ROUNDING * max(1.0, abs(value)) else np.nan
        row |= {"reward": value, "low": value - half, "high": value + half}
        if ideal is not None:
            start = float(np.mean([reward[0] for reward in frontier.reward]))
            row["optimality_low"], row["optimality_high"] = optimality(value, start, ideal.at(budget))
    return row


def _beside(row: dict[str, Any], mine: Frontier, base: Frontier, seeds: Sequence[int], tested: list[Any]) -> None:
    """Put the row with both methods' numbers (seeds, prompts) on the list of what is compared, or say why it is not."""
    low, high = max(mine.span[0], base.span[0]), min(mine.span[1], base.span[1], MAX_KL)
    if row["kl_budget"] == SHARED:
        row["from"], row["to"] = low, high
        at, possible = area_grid(low, high) if low < high else np.empty(0), low < high
    else:
        at = np.array([float(row["kl_budget"])])
        possible = max(mine.span[0], base.span[0]) <= at[0] <= min(mine.span[1], base.span[1])
    if not seeds:
        row["verdict"] = "no seed in common"
    elif not possible:
        row["verdict"] = "no policy there"
    else:
        tested.append((row, mine.by_prompt(at).mean(axis=1), base.by_prompt(at).mean(axis=1)))
