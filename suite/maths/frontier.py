"""The reward-KL frontier of one method: the points that none of its others beats, and the area under them. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_indices(kl: ArrayLike, reward: ArrayLike) -> NDArray[np.int64]:
    """Indices of the points with more reward than every point of equal or smaller KL, by growing KL.

    Args:
        kl: Nats. Shape (points,).
        reward: Shape (points,).

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(kl, dtype=float), np.asarray(reward, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"reward: expected shape {x.shape} like kl, got {y.shape}")
    best, kept = -np.inf, []
    for index in np.lexsort((-y, x)):
        if y[index] > best:
            best = y[index]
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def mean_frontier_reward(kl: ArrayLike, reward: ArrayLike, *, reference_reward: float, max_kl: float) -> float:
    """Best reward within a KL budget, averaged over budgets uniform in [0, max_kl]: one number for a whole frontier.

    A budget that no point meets counts as the reference's reward (KL 0). This is the area under the frontier's steps divided
    by `max_kl`, in reward units; the learning-rate search maximises it.

    Raises:
        ValueError: `max_kl` ≤ 0, or shapes differ.
    """
    if not max_kl > 0:
        raise ValueError(f"max_kl: expected a number > 0, got {max_kl}")
    x, y = np.append(0.0, np.asarray(kl, dtype=float)), np.append(reference_reward, np.asarray(reward, dtype=float))
    kept = [i for i in pareto_indices(np.maximum(x, 0), y) if x[i] <= max_kl]
    edges = np.append(np.maximum(x, 0)[kept], max_kl)
    return float(np.sum(np.diff(edges) * y[kept]) / max_kl)
