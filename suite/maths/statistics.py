"""Means with intervals, paired differences and tests. No torch; every draw comes from a passed seed.

`level` is an interval's coverage, `resamples` the number of bootstrap replications. Values that are empty, not finite, not of
one axis, or not of the shape that they must share raise ValueError.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats import multitest, proportion

ROUNDING = 1e-12
"""Numbers that differ by less, or by less than this part of the largest, are alike."""
MANY = 2000
"""Units beyond which the normal interval is used: it agrees with BCa there, whose cost grows with the square."""


Limits = tuple[float, float] | None
"""The least and the largest value that is possible; None if there are none."""


class Interval(NamedTuple):
    """A mean with its interval and the number of independent units (prompts) behind it."""

    mean: float
    low: float
    high: float
    n: int


def exactly(value: float, n: int) -> Interval:
    """What a formula gives and no sample decides."""
    return Interval(value, value, value, n)


def _symmetric(mean: float, half: float, n: int) -> Interval:
    return Interval(mean, mean - half, mean + half, n)


def _without_scatter(mean: float, n: int, level: float, limits: Limits) -> Interval:
    """The interval of units that are all alike, of which resampling knows no other.

    Where values have `limits`: with Clopper and Pearson, at most the share q = 1 - (α/2)^(1/n) of all units is different, and
    at most as different as the limits allow. Else an interval is not known, but for what is 0 in every unit: a quantity
    without limits is so only by construction, as the difference of a policy from itself.
    """
    if limits is None:
        return _symmetric(mean, 0.0 if mean == 0 else math.nan, n)
    share = 1 - ((1 - level) / 2) ** (1 / n)
    return Interval(mean, mean - share * (mean - limits[0]), mean + share * (limits[1] - mean), n)


def _within(limits: Limits, found: Interval) -> Interval:
    """A symmetric interval, cut where no value can be."""
    return found if limits is None else found._replace(low=max(found.low, limits[0]), high=min(found.high, limits[1]))


def mean_interval(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000, limits: Limits = None
) -> Interval:  # fmt: skip
    """Mean of per-prompt values and its BCa bootstrap interval over prompts (Efron 1987); normal beyond `MANY` of them.

    `limits` are the least and the largest value that a unit can have; they matter where all units are alike.

    Prompts are the independent units: several samples of one prompt must be averaged before they come here. The interval is
    conditional on the trained policy; it says nothing about training seeds.
    """
    x = _finite(values)
    mean = float(x.mean())
    if np.ptp(x) <= ROUNDING * max(1.0, float(np.abs(x).max())):
        return _without_scatter(mean if x.any() else 0.0, len(x), level, limits)
    if len(x) < 3:
        return _symmetric(mean, math.nan, len(x))
    if len(x) > MANY:
        return _within(
            limits, _symmetric(mean, float(stats.norm.ppf((1 + level) / 2) * x.std(ddof=1) / math.sqrt(len(x))), len(x))
        )
    interval = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), len(x))


def clustered_mean_interval(
    values: ArrayLike,
    clusters: Iterable[Any],
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
    limits: Limits = None,
) -> Interval:
    """Mean of values that come in clusters (pairs of one prompt) and its BCa bootstrap interval over clusters.

    The mean is over values, Σ values / their number; clusters may differ in size and are resampled whole. Beyond `MANY`
    clusters the interval is the normal one. `clusters` has the label of each value, something that can be sorted; the
    interval's n is the number of clusters.
    """
    x, labels = np.asarray(values, dtype=float), np.fromiter(clusters, dtype=object)  # type: ignore[arg-type]
    if x.ndim != 1 or x.shape != labels.shape or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers and one cluster each, got shapes {x.shape} and {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(index, weights=x), np.bincount(index)
    mean = float(x.mean())
    residuals = sums - mean * counts
    equal = bool(np.allclose(residuals, 0, atol=ROUNDING * max(1.0, float(np.abs(sums).max()))))  # every cluster has this mean
    if equal:
        return _without_scatter(0.0 if not x.any() else mean, len(sums), level, limits)
    if len(sums) < 3:
        return _symmetric(mean, math.nan, len(sums))
    if len(sums) > MANY:  # linearised ratio
        half = float(stats.norm.ppf((1 + level) / 2) * residuals.std(ddof=1) * math.sqrt(len(sums)) / counts.sum())
        return _within(limits, _symmetric(mean, half, len(sums)))

    def ratio(s: NDArray[np.float64], c: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(s.sum(axis=axis) / c.sum(axis=axis))

    interval = stats.bootstrap(
        (sums, counts), ratio, paired=True, vectorized=True, confidence_level=level, n_resamples=resamples, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(interval.low), float(interval.high), len(sums))


def clustered_share_interval(values: ArrayLike, clusters: Iterable[Any], *, level: float = 0.95, seed: int = 0) -> Interval:
    """As `clustered_mean_interval`, for values in [0, 1], which are its limits: 0 of 10, or 10 of 10, is no certainty.

    Raises:
        ValueError: A value is out of range.
    """
    x = np.asarray(values, dtype=float)
    if x.size and (x.min() < 0 or x.max() > 1):
        raise ValueError(f"values: expected shares from 0 to 1, got {x.min():g} to {x.max():g}")
    return clustered_mean_interval(x, clusters, level=level, seed=seed, limits=(0.0, 1.0))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0, limits: Limits = None
) -> Interval:  # fmt: skip
    """Mean of a - b on the same prompts with its interval. No difference is resolved where the interval holds 0. `limits` are
    those of the difference.
    """
    x, y = same_prompts(a, b)
    return mean_interval(x - y, level=level, seed=seed, limits=limits)


def same_prompts(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays, of one shape."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"b: expected the same prompts as a, shape {x.shape}, got {y.shape}")
    return x, y


def t_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean over K training seeds and its t interval with K - 1 degrees of freedom; NaN bounds for K = 1 or all alike."""
    x = _finite(values)
    half = math.nan
    if len(x) > 1 and np.ptp(x) > ROUNDING * max(1.0, float(np.abs(x).max())):
        half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return _symmetric(float(x.mean()), half, len(x))


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Share of independent successes with Wilson's interval. Outcomes that come in clusters need `clustered_mean_interval`.

    Raises:
        ValueError: Not 0 ≤ successes ≤ n, or n < 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes: expected 0 to n and n at least 1, got {successes} of {n}")
    low, high = proportion.proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's correction for several tests (Holm 1979): corrected p-values, to be compared with the level as they are."""
    return np.asarray(multitest.multipletests(np.asarray(p_values, dtype=float), method="holm")[1])


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers of shape (n,), got shape {x.shape}")
    return x
