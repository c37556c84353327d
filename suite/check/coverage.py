"""Do the intervals hold the truth as often as they say? Simulated data whose truth is known, at the sizes that are reported."""

from collections.abc import Callable

import numpy as np

from suite.maths import statistics
from suite.maths.frontier import Frontier, bootstrap
from suite.maths.statistics import Interval

SIZES = (64, 256, 512)
RESAMPLES = 1000

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


def seeds_and_prompts(seeds: int) -> Case:
    """A frontier's reward at a KL, bootstrapped over prompts and `seeds` training seeds that scatter by 0.01."""

    def case(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
        of_seed = rng.normal(0, 0.01, (seeds, 1))
        difficulty = rng.beta(0.4, 0.6, n)
        reward = np.clip(difficulty + of_seed + rng.normal(0, 0.02, (seeds, n)), -1, 2)
        frontier = Frontier(np.stack([np.zeros_like(reward), reward], axis=1), np.stack([0 * reward, 1 + 0 * reward], axis=1))
        draws = bootstrap({"a": frontier}, [1.0], max_kl=1.0, resamples=RESAMPLES, seed=int(rng.integers(2**31)))["a"][:, 0]
        low, high = np.quantile(draws, [0.025, 0.975])
        return Interval(float(frontier.at([1.0])[0]), low, high, n), 0.4

    case.__doc__ = f"A frontier's reward, percentiles over prompts and {seeds} training seeds that scatter by 0.01."
    return case


def paired_at_equal_kl(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """Difference of two frontiers at a KL, one seed each, paired bootstrap percentiles: the comparison table's interval."""
    draws, gap = _two_frontiers(rng, n, better=0.02)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(gap, low, high, n), 0.02


def no_difference(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
    """The comparison table's p-value where there is no difference: coverage is the share of p above 0.05."""
    draws, gap = _two_frontiers(rng, n, better=0.0)
    inside = statistics.bootstrap_p_value(draws) > 0.05
    return Interval(gap, -1.0 if inside else 2.0, 1.0 if inside else 3.0, n), 0.0


def _two_frontiers(rng: np.random.Generator, n: int, *, better: float) -> tuple[np.ndarray, float]:
    """Replications of the difference at 1 nat of two methods that share the prompts' difficulty, and the difference."""
    difficulty = rng.beta(0.4, 0.6, n)
    found = {}
    for name, shift in (("a", better), ("b", 0.0)):
        reward = (difficulty + shift + rng.normal(0, 0.2, n))[None]
        frontier = np.stack([np.zeros((1, n)), reward], axis=1)
        found[name] = Frontier(frontier, np.stack([np.zeros((1, n)), np.ones((1, n))], axis=1))
    draws = bootstrap(found, [1.0], max_kl=1.0, resamples=RESAMPLES, seed=int(rng.integers(2**31)))
    return draws["a"][:, 0] - draws["b"][:, 0], float(found["a"].at([1.0])[0] - found["b"].at([1.0])[0])


def seeds_alone(seeds: int) -> Case:
    """Mean over `seeds` training seeds by t; n plays no part."""

    def case(rng: np.random.Generator, n: int) -> tuple[Interval, float]:
        return statistics.t_interval(rng.normal(0.8, 0.01, seeds)), 0.8

    case.__doc__ = f"Mean over {seeds} training seeds, t with {seeds - 1} degrees of freedom; prompts play no part."
    return case


CASES: dict[str, Case] = {
    "mean reward, middling policy": mid_rewards, "mean reward, policy near the top": high_rewards, "paired difference": paired,
    "win rate, Wilson": independent_wins, "win rate, both orders, clustered": wins_in_both_orders,
    "difference at equal KL": paired_at_equal_kl, "p-value without a difference": no_difference,
    "frontier, 2 seeds": seeds_and_prompts(2), "frontier, 5 seeds": seeds_and_prompts(5),
    "over 2 seeds, t": seeds_alone(2), "over 5 seeds, t": seeds_alone(5),
}  # fmt: skip


def simulate(case: Case, n: int, replications: int) -> dict[str, float]:
    """Share of intervals that hold the truth, with its own Wilson interval, and their mean width."""
    rng = np.random.default_rng([n, replications])
    found = [case(rng, n) for _ in range(replications)]
    share = statistics.wilson_interval(sum(i.low <= truth <= i.high for i, truth in found), replications)
    width = float(np.mean([i.high - i.low for i, _ in found]))
    return {"coverage": share.mean, "low": share.low, "high": share.high, "width": width}
