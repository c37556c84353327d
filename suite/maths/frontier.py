"""The reward-KL frontier as a statistic: hull, reward at matched KL, area, bootstrap over prompts and seeds. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suite.maths.statistics import same_prompts

Array = NDArray[np.float64]
RESAMPLES = 4000
P_FLOOR = 2 / (1 + RESAMPLES)
"""The smallest p-value that so many replications can give."""


def pareto_indices(kl: ArrayLike, reward: ArrayLike) -> NDArray[np.int64]:
    """Indices of the points with more reward than every point of equal or smaller KL, by growing KL; shapes (points,).

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(kl, dtype=float), np.asarray(reward, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"reward: expected shape {x.shape} like kl, got {y.shape}")
    order = np.lexsort((-y, x))
    best_before = np.fmax.accumulate(np.append(-np.inf, y[order]))[:-1]
    return order[y[order] > best_before]


def hull_indices(kl: ArrayLike, reward: ArrayLike, *, reference_reward: float) -> NDArray[np.int64]:
    """Indices of the points on the upper concave hull of all points and the reference (KL 0), by growing KL.

    The hull is reached by real policies: drawing from policy a with probability 1 - w and from b with w has reward
    (1 - w)·r_a + w·r_b, and KL(π‖π_ref) of at most (1 - w)·KL_a + w·KL_b, since KL is convex in π. Points below the line
    between two others, or with less reward than the reference, are therefore never needed.

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(kl, dtype=float), np.asarray(reward, dtype=float)
    kept: list[int] = []
    corners = [(0.0, reference_reward)]
    for index in pareto_indices(x, y):
        if y[index] <= reference_reward:
            continue
        point = (max(float(x[index]), 0.0), float(y[index]))
        while kept and _slope(corners[-2], point) >= _slope(corners[-2], corners[-1]):
            kept.pop()
            corners.pop()
        kept.append(int(index))
        corners.append(point)
    return np.array(kept, dtype=np.int64)


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return np.inf if b[0] <= a[0] else (b[1] - a[1]) / (b[0] - a[0])


def reward_at_kl(kl: ArrayLike, reward: ArrayLike, at: ArrayLike) -> Array:
    """Reward at given KLs by linear interpolation between points, flat beyond the last: what a KL budget of `at` buys.

    Args:
        kl: Of the reference (0) and the hull's policies, nats. Shape (points,).
        reward: Same shape.
        at: Nats, shape (budgets,), which is the result's too.
    """
    x, y = np.asarray(kl, dtype=float), np.asarray(reward, dtype=float)
    order = np.argsort(x, kind="stable")
    return np.asarray(np.interp(np.asarray(at, dtype=float), x[order], y[order]))


@dataclass(frozen=True)
class Frontier:
    """A method's frontier on test prompts, one entry per training seed, policy and prompt; the reference comes first."""

    reward: Array  # shape (seeds, 1 + policies, prompts)
    kl: Array  # KL(π‖π_ref) or its bound, nats; same shape, 0 for the reference

    def __post_init__(self) -> None:
        if self.reward.ndim != 3 or self.reward.shape != self.kl.shape:
            raise ValueError(f"kl: expected three axes and the shape of reward, {self.reward.shape}, got {self.kl.shape}")

    def at(self, budgets: ArrayLike) -> Array:
        """Mean reward at each KL budget: the mean of the training seeds' own frontiers. Shape (budgets,).

        Averaging a policy's KL over seeds before interpolating would, the frontier being concave, pull down a method whose KL
        scatters between seeds.
        """
        return np.asarray(self.by_seed(budgets).mean(axis=0))

    def by_seed(self, budgets: ArrayLike) -> Array:
        """Reward at each KL budget on the frontier of each training seed, prompts averaged. Shape (seeds, budgets)."""
        of_seeds = zip(self.kl.mean(axis=2), self.reward.mean(axis=2), strict=True)
        return np.array([reward_at_kl(kl, reward, budgets) for kl, reward in of_seeds])

    def by_prompt(self, budget: float) -> Array:
        """Each prompt's reward under the mixture of policies that spends `budget` on average in each seed. Shape (prompts,)."""
        mixed = [_mixture(kl.mean(axis=1), reward, budget) for kl, reward in zip(self.kl, self.reward, strict=True)]
        return np.asarray(np.mean(mixed, axis=0))

    def area(self, max_kl: float) -> float:
        """Mean reward over KL budgets uniform in [0, max_kl]: the normalised area under the frontier, in reward units."""
        return float(self.at(_area_grid(max_kl)).mean())


def _mixture(kl: Array, reward: Array, budget: float) -> Array:
    """One seed's reward per prompt at `budget`: `kl` has shape (policies,), `reward` (policies, prompts)."""
    order = np.argsort(kl, kind="stable")
    kl, reward = kl[order], reward[order]
    right = int(np.searchsorted(kl, budget))
    left = max(right - 1, 0)
    right = min(right, len(kl) - 1)
    share = 0.0 if kl[right] == kl[left] else min((budget - kl[left]) / (kl[right] - kl[left]), 1.0)
    return np.asarray((1 - share) * reward[left] + share * reward[right])


def _area_grid(max_kl: float) -> Array:
    """Midpoints of 200 equal parts of [0, max_kl]."""
    return (np.arange(200) + 0.5) * max_kl / 200


def bootstrap(
    frontiers: Mapping[str, Frontier], budgets: Sequence[float], *, max_kl: float, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Array]:
    """Bootstrap replications of every frontier's reward at `budgets` and, last, of its area up to `max_kl`.

    Prompts are resampled once for all methods, so that differences of two methods' replications are paired; the training
    seeds of each method are resampled on their own, and a replication is the mean of its seeds' frontiers. With one seed the
    result is conditional on the trained policies; with two it understates how much seeds matter.

    Returns:
        Method → shape (resamples, budgets + 1).

    Raises:
        ValueError: The frontiers differ in prompts.
    """
    sizes = {name: frontier.reward.shape[2] for name, frontier in frontiers.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"frontiers: expected the same prompts for all, got {sizes}")
    rng = np.random.default_rng(seed)
    prompts = next(iter(sizes.values()))
    counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    grid = np.concatenate([np.asarray(budgets, dtype=float), _area_grid(max_kl)])
    found = {}
    for name, frontier in frontiers.items():
        seeds = frontier.reward.shape[0]
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
        curves = np.zeros((resamples, len(grid)))
        for of_seed, weight in zip(zip(frontier.kl, frontier.reward, strict=True), drawn.T, strict=True):
            means = [counts @ values.T for values in of_seed]
            curves += weight[:, None] * [reward_at_kl(kl, reward, grid) for kl, reward in zip(*means, strict=True)]
        found[name] = np.column_stack([curves[:, : len(budgets)], curves[:, len(budgets) :].mean(axis=1)])
    return found


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of prompts on which a's reward is above b's, ties counted half (Agarwal et al. 2021, arXiv:2108.13264, sec. 4.3).

    Raises:
        ValueError: Shapes differ.
    """
    x, y = same_prompts(a, b)
    return float(np.mean(np.where(x == y, 0.5, x > y)))
