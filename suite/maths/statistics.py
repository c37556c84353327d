"""Means with intervals, paired differences and order statistics. numpy and scipy only; every draw comes from a passed seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats


class Interval(NamedTuple):
    """A mean with its interval and the number of independent units (prompts) behind it."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of per-prompt values and its BCa bootstrap interval over prompts (Efron 1987).

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
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers of shape (n,), got shape {x.shape}")
    if np.ptp(x) == 0 or len(x) < 3:
        spread = 0.0 if np.ptp(x) == 0 else float("nan")
        return Interval(float(x.mean()), float(x.mean() - spread), float(x.mean() + spread), len(x))
    interval = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(x.mean()), float(interval.low), float(interval.high), len(x))


def clustered_mean_interval(
    values: ArrayLike, clusters: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Mean of values that come in clusters (pairs of one prompt) and its BCa bootstrap interval over clusters.

    The mean is over values, Σ values / their number; clusters may differ in size and are resampled whole.

    Args:
        values: Shape (values,).
        clusters: The cluster of each value, any labels. Same shape.
        level: Coverage.
        seed: Seed of the resampling.
        resamples: Bootstrap replications.

    Returns:
        The interval, with n the number of clusters.

    Raises:
        ValueError: Shapes differ, nothing there, or not finite.
    """
    x, labels = np.asarray(values, dtype=float), np.asarray(clusters)
    if x.ndim != 1 or x.shape != labels.shape or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"values: expected finite numbers and one cluster each, got shapes {x.shape} and {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(index, weights=x), np.bincount(index)
    mean = float(x.mean())
    if np.ptp(x) == 0 or len(sums) < 3:
        spread = 0.0 if np.ptp(x) == 0 else float("nan")
        return Interval(mean, mean - spread, mean + spread, len(sums))

    def ratio(s: NDArray[np.float64], c: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(s.sum(axis=axis) / c.sum(axis=axis))

    interval = stats.bootstrap(
        (sums, counts), ratio, paired=True, vectorized=True, confidence_level=level, n_resamples=resamples, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(interval.low), float(interval.high), len(sums))


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of a - b on the same prompts with its interval. Unresolved ("statistically tied") where the interval holds 0.

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"b: expected the same prompts as a, shape {x.shape}, got {y.shape}")
    return mean_interval(x - y, level=level, seed=seed)


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
