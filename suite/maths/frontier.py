"""The reward-KL frontier as a statistic: hull, reward at matched KL, what each prompt contributes to it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suite.maths.statistics import same_prompts

Array = NDArray[np.float64]


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
    """A method's frontier on test prompts. Of each training seed the policies that it keeps, the reference first."""

    seeds: Sequence[int]  # the training seeds, by whose order the others are
    reward: Sequence[Array]  # one entry per training seed, shape (1 + policies, prompts)
    kl: Sequence[Array]  # KL(π‖π_ref) or its bound, nats; same shapes, 0 for the reference

    def __post_init__(self) -> None:
        shapes = [values.shape for values in self.reward]
        if not shapes or len(shapes) != len(self.seeds):
            raise ValueError(f"reward: expected one entry per training seed, {len(self.seeds)}, got {len(shapes)}")
        if shapes != [values.shape for values in self.kl] or any(len(shape) != 2 for shape in shapes):
            raise ValueError(f"kl: expected two axes and the shapes of reward, {shapes}, got {[v.shape for v in self.kl]}")
        if len({shape[1] for shape in shapes}) != 1:
            raise ValueError(f"reward: expected the same prompts for all training seeds, got shapes {shapes}")

    def of(self, seeds: Sequence[int]) -> Frontier:
        """The same of these training seeds only, in their order."""
        places = [list(self.seeds).index(seed) for seed in seeds]
        return Frontier(seeds, [self.reward[k] for k in places], [self.kl[k] for k in places])

    @property
    def prompts(self) -> int:
        """Test prompts."""
        return int(self.reward[0].shape[1])

    @property
    def span(self) -> tuple[float, float]:
        """KL in nats between which every training seed has policies: of the first and the last one; (∞, 0) without any."""
        spent = [kl.mean(axis=1)[1:] for kl in self.kl]
        return max(kl.min(initial=np.inf) for kl in spent), min(kl.max(initial=0.0) for kl in spent)

    def at(self, budgets: ArrayLike) -> Array:
        """Mean reward at each KL budget: the mean of the training seeds' own frontiers. Shape (budgets,).

        Averaging a policy's KL over seeds before interpolating would, the frontier being concave, pull down a method whose KL
        scatters between seeds.
        """
        return np.asarray(self.by_seed(budgets).mean(axis=0))

    def by_seed(self, budgets: ArrayLike) -> Array:
        """Reward at each KL budget on the frontier of each training seed, prompts averaged. Shape (seeds, budgets)."""
        of_seeds = zip(self.kl, self.reward, strict=True)
        return np.array([reward_at_kl(kl.mean(axis=1), reward.mean(axis=1), budgets) for kl, reward in of_seeds])

    def by_prompt(self, budgets: ArrayLike) -> Array:
        """What each prompt contributes to the frontier at each KL budget, shape (seeds, budgets, prompts).

        Its mean over prompts is `by_seed`, and its spread is that of the frontier: a prompt counts by its reward under the
        mixture of policies that spends the budget, less what the KL that it spends above the budget would buy,
        r_i - slope·(KL_i - budget), the linearisation of the frontier in the two means (delta method).
        """
        at = np.atleast_1d(np.asarray(budgets, dtype=float))
        return np.array([_linearised(kl, reward, at) for kl, reward in zip(self.kl, self.reward, strict=True)])


def _linearised(kl: Array, reward: Array, budgets: Array) -> Array:
    """One seed's `Frontier.by_prompt`: `kl`, `reward` have shape (policies, prompts), the result (budgets, prompts)."""
    order = np.argsort(kl.mean(axis=1), kind="stable")
    kl, reward = kl[order], reward[order]
    x, y = kl.mean(axis=1), reward.mean(axis=1)
    right = np.clip(np.searchsorted(x, budgets), 1, max(1, len(x) - 1))
    if len(x) == 1:  # the reference alone
        return np.repeat(reward, len(budgets), axis=0)
    left, width = right - 1, x[right] - x[right - 1]
    inside = (budgets < x[-1]) & (width > 0)
    share = np.where(inside, (budgets - x[left]) / np.where(width > 0, width, 1.0), 1.0)[:, None]
    slope = np.where(inside, (y[right] - y[left]) / np.where(width > 0, width, 1.0), 0.0)[:, None]
    spent = (1 - share) * kl[left] + share * kl[right]
    return np.asarray((1 - share) * reward[left] + share * reward[right] - slope * (spent - spent.mean(axis=1, keepdims=True)))


def area_grid(low: float, high: float) -> Array:
    """Midpoints of 200 equal parts of [low, high]: the mean of a frontier there is its normalised area, in reward units."""
    return np.asarray(low + (np.arange(200) + 0.5) * (high - low) / 200)


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of prompts on which a's reward is above b's, ties counted half (Agarwal et al. 2021, arXiv:2108.13264, sec. 4.3).

    Raises:
        ValueError: Shapes differ.
    """
    x, y = same_prompts(a, b)
    return float(np.mean(np.where(x == y, 0.5, x > y)))
