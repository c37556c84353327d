"""Every KL of the project, in nats: sampled estimators, the exact per-step sum, and the Best-of-N bound."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def sampled_kl(policy_logps: Tensor, reference_logps: Tensor, *, estimator: Literal["k1", "k2", "k3"] = "k1") -> Tensor:
    """Estimate KL(π‖π_ref) from samples of π; works per token or per sequence, whatever the shape.

    With d = log π(y) - log π_ref(y) and y ~ π (Schulman 2020, joschu.net/blog/kl-approx.html):
    k1 = d (unbiased, can be negative), k2 = d²/2 (biased, never negative), k3 = e^(-d) - 1 + d (unbiased, never negative).

    Args:
        policy_logps: log π of the samples in nats at temperature 1. Any shape.
        reference_logps: log π_ref of the same samples. Same shape.
        estimator: Which of the three.

    Raises:
        ValueError: Shapes differ.
    """
    if policy_logps.shape != reference_logps.shape:
        raise ValueError(f"reference_logps: expected shape {tuple(policy_logps.shape)}, got {tuple(reference_logps.shape)}")
    difference = policy_logps - reference_logps
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.expm1(-difference) + difference


def exact_per_step_kl(policy_log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Sequence-level KL with every next-token KL computed over the whole vocabulary, summed along the sampled completion.

    KL = Σ_t Σ_v π(v|x, y_<t)·[log π(v|x, y_<t) - log π_ref(v|x, y_<t)],   y ~ π
    Same expectation as the sum of k1 (chain rule), never negative; its variance is usually, not always, lower.

    Args:
        policy_log_probs: log π(·|x, y_<t) in nats, normalised. Shape (batch, time, vocabulary).
        reference_log_probs: log π_ref, same shape.
        mask: True on completion tokens. Shape (batch, time), bool.

    Returns:
        Nats per completion, shape (batch,).

    Raises:
        ValueError: Shapes differ.
    """
    if policy_log_probs.shape != reference_log_probs.shape or mask.shape != policy_log_probs.shape[:2]:
        raise ValueError(
            f"shapes disagree: policy {tuple(policy_log_probs.shape)}, reference {tuple(reference_log_probs.shape)}, "
            f"mask {tuple(mask.shape)}"
        )
    per_step = (policy_log_probs.exp() * (policy_log_probs - reference_log_probs)).sum(-1)
    return (per_step * mask).sum(-1)


def best_of_n_kl_bound(n: int) -> float:
    """Upper bound on KL(best of n ‖ base) in nats: log n - (n - 1)/n (Beirami et al. 2024, arXiv:2401.01879).

    Equality holds only if no two completions tie; elsewhere it is a bound, never an estimate.

    Raises:
        ValueError: `n` < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    return math.log(n) - (n - 1) / n
