"""Do the intervals hold the truth as often as they say? Simulated data whose truth is known, at the sizes that are reported."""

from collections.abc import Callable

import numpy as np

from suite.maths import statistics
from suite.maths.frontier import Frontier
from suite.maths.seeds_and_prompts import simultaneous
from suite.maths.statistics import Interval

SIZES = (64, 256, 512)
RESAMPLES = 1000
BUDGETS = (1.5, 3.0, 6.0, 9.0)

Case = Callable[[np.random.Generator, int], tuple[Interval, float]]


def mid_rewards(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """P(positive) of a middling policy: piled up near 0 and 1, Beta(0.4, 0.6)."""
    return statistics.mean_interval(rng.beta(0.4, 0.6, n), resamples=RESAMPLES), 0.4


def high_rewards(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """Of a policy near the top: most near 1 with a long tail, Beta(1.8, 0.2)."""
    return statistics.mean_interval(rng.beta(1.8, 0.2, n), resamples=RESAMPLES), 0.9


def paired(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """Difference of two policies on the same prompts that share their difficulty, one a little better."""
    shared, own = rng.random(n) < 0.7, rng.beta(0.4, 0.6, (2, n))
    a, b = own[0], np.where(shared, own[0], own[1])
    return statistics.paired_difference(np.minimum(1, a + 0.03 * (1 - a)), b), 0.03 * 0.6


def independent_wins(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """Win rate of 0.61, one verdict per prompt: Wilson."""
    return statistics.wilson_interval(int(rng.binomial(n, 0.61)), n), 0.61


def wins_in_both_orders(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """Win rate of 0.61, two verdicts per prompt that agree on 80 % of them: clustered bootstrap."""
    first = rng.random(n) < 0.61
    again = np.where(rng.random(n) < 0.8, first, rng.random(n) < 0.61)
    wins, prompts = np.concatenate([first, again]), np.tile(np.arange(n), 2)
    return statistics.clustered_mean_interval(wins, prompts, resamples=RESAMPLES), 0.61


def method_differences(seeds: int, spread: float) -> Case:
    """All differences of a table at once: eight methods less one at four KL budgets, from frontiers of `seeds` training seeds
    whose means scatter by `spread`, policies' KLs included; the simultaneous intervals of the comparison table.
    """

    def case(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
        difficulty = rng.normal(0, 0.15, n)
        data = rng.normal(0, spread / 2, seeds)  # what the seeds' preferences do to every method
        base, *others = (_frontier(rng, difficulty, data, spread) for _ in range(9))
        gaps = [o.by_prompt(BUDGETS)[:, k] - base.by_prompt(BUDGETS)[:, k] for o in others for k in range(len(BUDGETS))]
        found = simultaneous(gaps, seed=int(rng.integers(2**31)), draws=RESAMPLES)
        half = float((found.quantile * found.error).mean())
        inside = bool(((found.low <= 0) & (found.high >= 0)).all())
        return Interval(0.0, -half if inside else half, half if inside else 3 * half, n), 0.0

    case.__doc__ = f"All of 32 differences of methods at once, {seeds} training seeds that scatter by {spread:g}; max-T."
    return case


def _frontier(rng: np.random.Generator, difficulty: np.ndarray, data: np.ndarray, spread: float) -> Frontier:
    """Four policies per seed on the curve 0.5 + 0.45·(1 - exp(-KL/4)), each with a KL and a shift of its own."""
    reward, kl = [], []
    for shared in data:
        spent = np.array([1.0, 3.0, 6.0, 12.0]) * np.exp(rng.normal(0, 0.2, 4))
        own = shared + rng.normal(0, spread)
        means = 0.45 * (1 - np.exp(-spent / 4)) + own
        rows = 0.5 + difficulty + means[:, None] + rng.normal(0, 0.25, (4, len(difficulty)))
        reward.append(np.vstack([0.5 + difficulty, rows]))
        kl.append(np.vstack([0 * difficulty, spent[:, None] * np.exp(rng.normal(0, 0.3, (4, len(difficulty))) - 0.045)]))
    return Frontier(range(len(data)), reward, kl)


def seeds_alone(seeds: int) -> Case:
    """Mean over `seeds` training seeds by t; n plays no part."""

    def case(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
        return statistics.t_interval(rng.normal(0.8, 0.01, seeds)), 0.8

    case.__doc__ = f"Mean over {seeds} training seeds, t with {seeds - 1} degrees of freedom; prompts play no part."
    return case


CASES: dict[str, Case] = {
    "mean reward, middling policy": mid_rewards, "mean reward, policy near the top": high_rewards, "paired difference": paired,
    "win rate, Wilson": independent_wins, "win rate, both orders, clustered": wins_in_both_orders,
    **{
        f"methods at equal KL, {seeds} seeds, spread {spread:g}": method_differences(seeds, spread)
        for seeds in (3, 5) for spread in (0.0, 0.01, 0.02)
    },
    "over 2 seeds, t": seeds_alone(2), "over 5 seeds, t": seeds_alone(5),
}  # fmt: skip


def simulate(case: Case, n: int, replications: int) -> dict[str, float]:
    """Share of intervals that hold the truth, with its own Wilson interval, and their mean width."""
    rng = np.random.default_rng([n, replications])
    found = [case(rng, n) for _ in range(replications)]
    share = statistics.wilson_interval(sum(i.low <= truth <= i.high for i, truth in found), replications)
    width = float(np.mean([i.high - i.low for i, _ in found]))
    return {"coverage": share.mean, "low": share.low, "high": share.high, "width": width}
