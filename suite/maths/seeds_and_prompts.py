"""Means over training seeds and prompts, with simultaneous intervals for all comparisons of a table. No torch.

Every training seed is measured on the same prompts, so a difference of two methods is a table of seeds by prompts with random
effects, y_sp = μ + a_s + b_p + e_sp: a_s is what another seed would change (data, reward model, training), b_p what other
prompts would, e_sp the sampling of one completion. Its mean has the variance σ_a²/S + σ_b²/P + σ_e²/(S·P), estimated from mean
squares (Searle, Casella, McCulloch 1992, *Variance Components*, ch. 4), with Satterthwaite's degrees of freedom (1946).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from suite.maths.statistics import ROUNDING

Array = NDArray[np.float64]
DRAWS = 4000
"""Simulated tables, from which the simultaneous level is found, unless another number is asked for."""
INDEPENDENT = 0.5
"""Share of the seeds' effects that simulated tables draw for each comparison on its own: a few seeds make comparisons look more
alike than they are (their covariance has one rank less than there are seeds)."""


class Estimate(NamedTuple):
    """Means with their variances and degrees of freedom, each of shape (comparisons,)."""

    mean: Array
    variance: Array
    df: Array

    @property
    def p(self) -> Array:
        """Two-sided p-values of "the mean is 0", each on its own."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.mean == 0, 0.0, np.abs(self.mean) / np.sqrt(self.variance))
        return np.asarray(2 * stats.t.sf(t, self.df))


class Simultaneous(NamedTuple):
    """Intervals that hold all true means at once with the given probability, each of shape (comparisons,)."""

    mean: Array
    low: Array
    high: Array
    p: Array  # the smallest family-wise level at which the interval would leave out 0
    error: Array  # standard error
    quantile: Array  # half the width of the interval, in standard errors


def estimate(values: ArrayLike) -> Estimate:
    """Means of tables (comparisons, seeds, prompts), finite, with at least two prompts.

    With one seed the variance is that over prompts, for the policies at hand; with more it holds for new seeds too.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 3 or x.shape[2] < 2 or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers of shape (comparisons, seeds, prompts ≥ 2), got {x.shape}")
    seeds, prompts = x.shape[1:]
    within, between = _prompt_part(x)
    if seeds == 1:
        return Estimate(x.mean(axis=(1, 2)), between, np.full(len(x), prompts - 1.0))
    return Estimate(x.mean(axis=(1, 2)), *_combined(x.mean(axis=2).var(axis=1, ddof=1), between, within, seeds, prompts))


def simultaneous(values: ArrayLike, *, level: float = 0.95, seed: int = 0, draws: int = DRAWS) -> Simultaneous:
    """Intervals for all comparisons together by max-T: t intervals at the level that the smallest p-value of a table passes in
    1 - `level` of simulated tables that have no difference, and the seeds' and prompts' covariances of this one.

    Correlated comparisons (the same method at two budgets) are therefore not paid for twice. Where a difference is the same in
    every seed and prompt there is no interval (NaN), unless it is 0 in all.
    """
    found = estimate(values)
    smallest = _smallest_p(np.asarray(values, dtype=float), found, np.random.default_rng(seed), draws)
    each = min(1 - level, float(np.quantile(smallest, 1 - level)))
    quantile = np.asarray(stats.t.isf(each / 2, found.df))
    error = np.sqrt(found.variance)
    adjusted = (1 + np.searchsorted(np.sort(smallest), found.p, side="right")) / (1 + len(smallest))
    adjusted = np.maximum(found.p, np.minimum(1.0, adjusted))
    unknown = (error <= ROUNDING * np.maximum(1.0, np.abs(found.mean))) & (
        found.mean != 0
    )  # all alike and not the same: how much they scatter is not seen
    half, adjusted = np.where(unknown, np.nan, quantile * error), np.where(unknown, np.nan, adjusted)
    return Simultaneous(found.mean, found.mean - half, found.mean + half, adjusted, error, quantile)


def detectable_gap(comparisons: int, seeds: int, prompts: int, *, scatter: float, spread: float, power: float = 0.8) -> float:
    """The true difference that a table so large finds with `power`, before anything is measured: from made-up tables.

    Args:
        comparisons, seeds, prompts: Shape of the table. Half of the variance is taken to be common to all comparisons, which
            are all with one method.
        scatter: Standard deviation of a prompt's difference within a seed, a quarter of its variance the prompt's own.
        spread: Standard deviation of the seeds' differences.
        power: Probability of finding it.
    """
    rng = np.random.default_rng(0)

    def effect(shape: tuple[int, ...], scale: float) -> Array:
        parts = rng.standard_normal(shape) + rng.standard_normal((comparisons, *shape))
        return np.asarray(scale * np.sqrt(0.5) * parts)

    gaps = []
    for _ in range(12):
        noise = effect((1, prompts), scatter / 2) + effect((seeds, prompts), scatter * np.sqrt(0.75))
        found = simultaneous(effect((seeds, 1), spread) + noise, draws=DRAWS // 8)
        gaps.append(((found.quantile + stats.norm.ppf(power)) * found.error).mean())
    return float(np.mean(gaps))


def _prompt_part(x: Array) -> tuple[Array, Array]:
    """Variance of the mean over prompts from the seeds' own scatter on a prompt, and from prompts: σ̂_e²/(S·P), σ̂_b²/P."""
    seeds, prompts = x.shape[1:]
    of_prompt = x.mean(axis=1)
    of_means = of_prompt.var(axis=1, ddof=1) / prompts
    if seeds == 1:
        return np.zeros(len(x)), of_means
    rest = x - x.mean(axis=2, keepdims=True) - of_prompt[:, None] + x.mean(axis=(1, 2), keepdims=True)
    within = np.square(rest).sum(axis=(1, 2)) / ((seeds - 1) * (prompts - 1) * seeds * prompts)
    return within, np.maximum(0.0, of_means - within)


def _combined(of_seeds: Array, between: Array, within: Array, seeds: int, prompts: int) -> tuple[Array, Array]:
    """Variance and degrees of freedom of a mean. `of_seeds`, the variance of the seeds' means, holds σ_e²/P too: by chance it
    may be estimated as less than that, never taken as less.
    """
    first = np.maximum(of_seeds / seeds, within)
    variance = first + between
    counted = between > 0
    squares = first**2 / (seeds - 1)
    squares = squares + np.where(counted, (between + within) ** 2 / (prompts - 1), 0.0)
    squares = squares + np.where(counted, within**2 / ((seeds - 1) * (prompts - 1)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return variance, np.asarray(np.where(squares > 0, variance**2 / squares, prompts - 1.0))


def _smallest_p(x: Array, found: Estimate, rng: np.random.Generator, draws: int) -> Array:
    """The smallest p-value of each of so many simulated tables without any difference."""
    seeds, prompts = x.shape[1:]
    within, between = _prompt_part(x)
    of_prompt = x.mean(axis=1) - x.mean(axis=(1, 2))[:, None]
    scale = np.sqrt(np.square(of_prompt).sum(axis=1))
    directions = of_prompt / np.where(scale > 0, scale, 1.0)[:, None]
    shift = np.sqrt(between) * (rng.standard_normal((draws, prompts)) @ directions.T)
    if seeds == 1:
        return np.asarray(Estimate(shift, found.variance, found.df).p.min(axis=1))
    scatter = (x.mean(axis=2) - x.mean(axis=(1, 2))[:, None]) / np.sqrt(seeds - 1)  # its square is the seeds' covariance
    drawn = rng.standard_normal((draws, seeds, seeds)) @ scatter.T  # (draws, seeds, comparisons)
    own = rng.standard_normal(drawn.shape) * np.sqrt(np.square(scatter).sum(axis=1))
    drawn = np.sqrt(1 - INDEPENDENT) * drawn + np.sqrt(INDEPENDENT) * own
    variance, df = _combined(drawn.var(axis=1, ddof=1), between, within, seeds, prompts)
    return np.asarray(Estimate(drawn.mean(axis=1) + shift, variance, df).p.min(axis=1))
