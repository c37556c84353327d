"""The limit that no policy can pass: reward and KL of π* ∝ π_ref·exp(r/β), from samples of the reference. numpy and scipy."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
MIN_EFFECTIVE_SAMPLES = 5.0
NATS_BELOW_LOG_N = 2.0


def tilted(rewards: ArrayLike, beta: float) -> tuple[Array, Array, Array]:
    """Per prompt, reward, KL(π*‖π_ref) [nats] and effective sample size of π* ∝ π_ref·exp(r/β), by self-normalised weights.

    w_i ∝ exp(r_i/β):   E_π*[r] ≈ Σ w_i·r_i,   KL ≈ Σ w_i·log(N·w_i),   ESS = 1/Σ w_i²

    The same β for all prompts gives the largest mean reward for its mean KL, over all policies (Eq. 4 of Rafailov et al.
    2023). KL cannot exceed log N here, and both means are biased downwards as it comes near.

    Args:
        rewards: Of N samples of the reference for each prompt. Shape (prompts, N); the three results have (prompts,).
        beta: β > 0.

    Raises:
        ValueError: Wrong shape, not finite, or β ≤ 0.
    """
    r = np.asarray(rewards, dtype=float)
    if r.ndim != 2 or not r.size or not np.isfinite(r).all():
        raise ValueError(f"rewards: expected finite numbers of shape (prompts, N), got shape {r.shape}")
    if not beta > 0:
        raise ValueError(f"beta: expected a number > 0, got {beta}")
    log_w = special.log_softmax(r / beta, axis=1)
    w = np.exp(log_w)
    return (w * r).sum(axis=1), (w * (log_w + math.log(r.shape[1]))).sum(axis=1), 1 / np.square(w).sum(axis=1)


@dataclass(frozen=True)
class IdealFrontier:
    """The largest mean reward for each mean KL, as far as the samples reach. Arrays have shape (points,)."""

    kl: Array  # nats, growing from 0
    reward: Array
    low: Array  # `reward` with the 95 % bootstrap interval over prompts of the gain over the reference
    high: Array
    effective_samples: Array  # mean effective sample size over prompts
    limit: float  # largest KL up to which this holds, nats; beyond it the ideal lies between the last reward and `maximum`
    maximum: float  # the largest reward there is

    def at(self, kl: float) -> tuple[float, float]:
        """Bracket of the ideal reward at `kl`: one value twice within the limit, beyond it the last one and the maximum."""
        if kl <= self.limit:
            value = float(np.interp(kl, self.kl, self.reward))
            return value, value
        return float(self.reward[-1]), self.maximum


def ideal_frontier(
    rewards: ArrayLike, *, maximum: float, start: float | None = None, points: int = 40, resamples: int = 500, seed: int = 0
) -> IdealFrontier:
    """The ideal frontier up to KL ≤ log N - 2 nats, as long as the mean effective sample size is at least 5.

    For each KL the β that spends it on average is found; prompts are resampled for the interval, and β found anew.

    Args:
        rewards: As in `tilted`.
        maximum: The largest possible reward.
        start: The reference's mean reward on the prompts that methods are measured on, if those are more. What is estimated
            is then the share of the way from the reference to `maximum`, or the gain itself if `maximum` is infinite; it is
            carried over to `start`. Default: the mean of `rewards`.
        points: How many KLs.
        resamples: Bootstrap replications.
        seed: Of the resampling.

    Raises:
        ValueError: As `tilted`; too few samples for any KL; or all rewards of every prompt are equal.
    """
    r = np.asarray(rewards, dtype=float)
    tilted(r, 1.0)
    largest = math.log(r.shape[1]) - NATS_BELOW_LOG_N
    if largest <= 0 or np.ptp(r, axis=1).max() == 0:
        raise ValueError(f"rewards: {r.shape[1]} samples per prompt, or equal rewards, give no frontier; use 16 or more")
    # one table of (β, prompt) serves every replication
    spread = float(np.ptp(r))
    betas = np.geomspace(spread * 1e-3, spread * 1e3, 400)[::-1]
    table = [tilted(r, beta) for beta in betas]
    reward, kl, samples = (np.array([row[k] for row in table]) for k in range(3))  # (betas, prompts)
    enough = samples.mean(axis=1) >= MIN_EFFECTIVE_SAMPLES
    limit = min(largest, float(kl.mean(axis=1)[enough].max()))
    grid = limit * np.linspace(0, 1, points) ** 2  # reward rises as the root of a small KL

    start = float(r.mean()) if start is None else start

    def curve(weights: Array) -> Array:
        own = float(r.mean(axis=1) @ weights)
        gain = np.where(grid == 0, 0.0, np.interp(grid, kl @ weights, reward @ weights) - own)
        if math.isfinite(maximum) and own < maximum:
            gain = (maximum - start) * gain / (maximum - own)
        return np.asarray(start + gain)

    everyone = np.full(r.shape[0], 1 / r.shape[0])
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(r.shape[0], everyone, size=resamples) / r.shape[0]
    low, high = np.quantile([curve(weights) for weights in draws], [0.025, 0.975], axis=0)
    sizes = np.interp(grid, kl @ everyone, samples @ everyone)
    return IdealFrontier(grid, curve(everyone), low, high, sizes, limit, maximum)


def optimality(reward: float, start: float, ideal: tuple[float, float]) -> tuple[float, float]:
    """How much of the possible gain a policy has made: the smallest and largest (reward - start)/(ideal - start).

    `reward` is the policy's mean, `start` the reference's, and `ideal` brackets the ideal at the policy's KL
    (`IdealFrontier.at`). NaN where there is nothing to gain.
    """
    if not ideal[0] > start:
        return float("nan"), float("nan")
    low, high = sorted((reward - start) / (limit - start) for limit in ideal)
    return low, high
