"""Best-of-N: expected rewards from order statistics of a pool, and the bound on its KL. numpy and scipy."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def expected_best_of_n(rewards: ArrayLike, n: int, *, scores: ArrayLike | None = None) -> NDArray[np.float64]:
    """Expected reward of the sample with the highest score among `n`: Best-of-N for every N from one pool of samples.

    E = Σ_i r_(i)·C(i-1, n-1)/C(M, n) with samples ordered by score, s_(1) ≤ … ≤ s_(M): the mean over all sets of n of the M,
    unbiased for n independent samples. Without `scores` the reward itself selects, and this is the expected maximum.

    Args:
        rewards: What is reported, of M samples of each prompt. Shape (prompts, M); the result's is (prompts,).
        n: How many are drawn, 1 ≤ n ≤ M.
        scores: What selects. Same shape.

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
    return np.asarray(ordered @ np.exp(log_weight))


def best_of_n_kl_bound(n: int) -> float:
    """Upper bound on KL(best of n ‖ base) in nats: log n - (n - 1)/n (Beirami et al. 2024, arXiv:2401.01879).

    Equality holds only if no two completions tie; elsewhere it is a bound, never an estimate.

    Raises:
        ValueError: `n` < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    return math.log(n) - (n - 1) / n
