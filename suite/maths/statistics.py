"""Means with intervals, paired differences, tests and order statistics. No torch; every draw comes from a passed seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from statsmodels.stats import multitest, proportion

MANY = 2000
"""Units beyond which the normal interval is used: it agrees with BCa there, whose cost grows with the square."""


class Interval(NamedTuple):
    """A mean with its interval and the number of independent units (prompts) behind it."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of per-prompt values and its BCa bootstrap interval over prompts (Efron 1987); normal beyond `MANY` of them.

    Prompts are the independent units: several samples of one prompt must be averaged before they come here. The interval is
    conditional on the trained policy; it says nothing about training seeds.

    Args:
        values: One value per prompt. Shape (n,).
        level: Coverage.
        seed: Seed of the resampling; same seed, same interval.
        resamples: Bootstrap replications.

    Raises:
        ValueError: Not one-dimensional, empty, or not finite.
    """
    x = _finite(values)
    if np.ptp(x) == 0 or len(x) < 3:
        spread = 0.0 if np.ptp(x) == 0 else float("nan")
        return Interval(float(x.mean()), float(x.mean() - spread), float(x.mean() + spread), len(x))
    if len(x) > MANY:
        half = float(stats.norm.ppf((1 + level) / 2) * x.std(ddof=1) / math.sqrt(len(x)))
        return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))
    interval = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(x.mean()), float(interval.low), float(interval.high), len(x))


def clustered_mean_interval(
    values: ArrayLike, clusters: Iterable[Any], *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Mean of values that come in clusters (pairs of one prompt) and its BCa bootstrap interval over clusters.

    The mean is over values, Σ values / their number; clusters may differ in size and are resampled whole. Beyond `MANY`
    clusters the interval is the normal one.

    Args:
        values: Shape (values,).
        clusters: The cluster of each value, labels that can be sorted. Same length.
        level: Coverage.
        seed: Seed of the resampling.
        resamples: Bootstrap replications.

    Returns:
        The interval, with n the number of clusters.

    Raises:
        ValueError: Shapes differ, nothing there, or not finite.
    """
    x, labels = np.asarray(values, dtype=float), np.fromiter(clusters, dtype=object)  # type: ignore[arg-type]
    if x.ndim != 1 or x.shape != labels.shape or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers and one cluster each, got shapes {x.shape} and {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(index, weights=x), np.bincount(index)
    mean = float(x.mean())
    residuals = sums - mean * counts
    equal = bool(np.allclose(residuals, 0, atol=1e-12 * max(1.0, float(np.abs(sums).max()))))  # every cluster has this mean
    if equal or len(sums) < 3:
        spread = 0.0 if equal else float("nan")
        return Interval(mean, mean - spread, mean + spread, len(sums))

    if len(sums) > MANY:  # linearised ratio
        half = float(stats.norm.ppf((1 + level) / 2) * residuals.std(ddof=1) * math.sqrt(len(sums)) / counts.sum())
        return Interval(mean, mean - half, mean + half, len(sums))

    def ratio(s: NDArray[np.float64], c: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(s.sum(axis=axis) / c.sum(axis=axis))

    interval = stats.bootstrap(
        (sums, counts), ratio, paired=True, vectorized=True, confidence_level=level, n_resamples=resamples, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(interval.low), float(interval.high), len(sums))


def clustered_share_interval(values: ArrayLike, clusters: Iterable[Any], *, level: float = 0.95, seed: int = 0) -> Interval:
    """As `clustered_mean_interval`, for values in [0, 1]. Where all are 0, or all 1, resampling knows no other value; then the
    open side is that of Clopper and Pearson over clusters: 0 or 1 is no certainty.

    Raises:
        ValueError: As `clustered_mean_interval`, or a value is out of range.
    """
    x = np.asarray(values, dtype=float)
    if x.size and (x.min() < 0 or x.max() > 1):
        raise ValueError(f"values: expected shares from 0 to 1, got {x.min():g} to {x.max():g}")
    found = clustered_mean_interval(x, clusters, level=level, seed=seed)
    if found.mean not in (0.0, 1.0):
        return found
    bound = ((1 - level) / 2) ** (1 / found.n)
    return found._replace(low=bound if found.mean else 0.0, high=1.0 if found.mean else 1 - bound)


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of a - b on the same prompts with its interval. Unresolved ("statistically tied") where the interval holds 0.

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"b: expected the same prompts as a, shape {x.shape}, got {y.shape}")
    return mean_interval(x - y, level=level, seed=seed)


def t_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean over K training seeds and its t interval with K - 1 degrees of freedom; NaN bounds for K = 1.

    Raises:
        ValueError: Not one-dimensional, empty, or not finite.
    """
    x = _finite(values)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, float("nan"), float("nan"), len(x))
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Share of independent successes with Wilson's interval. Outcomes that come in clusters need `clustered_mean_interval`.

    Raises:
        ValueError: Not 0 ≤ successes ≤ n, or n < 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes: expected 0 to n and n at least 1, got {successes} of {n}")
    low, high = proportion.proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def bootstrap_p_value(differences: ArrayLike) -> float:
    """Two-sided p-value of "no difference" from bootstrap replications of a difference: twice the smaller tail beyond 0.

    p = min(1, 2·(1 + min(#{d ≤ 0}, #{d ≥ 0}))/(1 + B)), never 0 with B replications.

    Raises:
        ValueError: As `t_interval`.
    """
    d = _finite(differences)
    return min(1.0, 2 * (1 + min(int((d <= 0).sum()), int((d >= 0).sum()))) / (1 + len(d)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's correction for several tests (Holm 1979): corrected p-values, to be compared with the level as they are."""
    corrected: NDArray[np.float64] = multitest.multipletests(np.asarray(p_values, dtype=float), method="holm")[1]
    return corrected


def minimum_detectable_difference(
    differences: ArrayLike, *, level: float = 0.05, power: float = 0.8, seed_variance: float = 0.0
) -> float:
    """The smallest mean paired difference that a two-sided test on as many prompts finds with the given power.

    (z_{1-level/2} + z_power)·√(s²/n + seed variance), a normal approximation.

    Args:
        differences: Per prompt. Shape (n,).
        level: Of the test; divided by the number of tests for Bonferroni's bound on Holm's.
        power: Probability of finding it.
        seed_variance: Of the mean difference, from training seeds: what more prompts do not lower.

    Raises:
        ValueError: Fewer than three differences, or as `t_interval`.
    """
    d = _finite(differences)
    if len(d) < 3:
        raise ValueError(f"differences: expected at least 3, got {len(d)}")
    z = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power))
    return z * math.sqrt(float(d.var(ddof=1)) / len(d) + seed_variance)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers of shape (n,), got shape {x.shape}")
    return x


def expected_best_of_n(rewards: ArrayLike, n: int, *, scores: ArrayLike | None = None) -> NDArray[np.float64]:
    """Expected reward of the sample with the highest score among `n`: Best-of-N for every N from one pool of samples.

    E = Σ_i r_(i)·C(i-1, n-1)/C(M, n) with samples ordered by score, s_(1) ≤ … ≤ s_(M): the mean over all sets of n of the M,
    unbiased for n independent samples. Without `scores` the reward itself selects, and this is the expected maximum.

    Args:
        rewards: What is reported, of M samples of each prompt. Shape (prompts, M).
        n: How many are drawn, 1 ≤ n ≤ M.
        scores: What selects. Same shape.

    Returns:
        Shape (prompts,).

    Raises:
        ValueError: `n` is out of range, or shapes differ.
    """
    values = np.asarray(rewards, dtype=float)
    by = values if scores is None else np.asarray(scores, dtype=float)
    if by.shape != values.shape:
        raise ValueError(f"scores: expected shape {values.shape} like rewards, got {by.shape}")
    ordered = np.take_along_axis(values, np.argsort(by, axis=1, kind="stable"), axis=1)
    size = ordered.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"n: expected 1 to {size} (the pool size), got {n}")
    rank = np.arange(1, size + 1)
    # C(i-1, n-1)/C(M, n) through log-gamma; impossible ranks (i < n) get weight 0
    log_weight = np.full(size, -np.inf)
    possible = rank >= n
    log_weight[possible] = (
        special.gammaln(rank[possible])
        - special.gammaln(n)
        - special.gammaln(rank[possible] - n + 1)
        - (special.gammaln(size + 1) - special.gammaln(n + 1) - special.gammaln(size - n + 1))
    )
    expected: NDArray[np.float64] = ordered @ np.exp(log_weight)
    return expected
