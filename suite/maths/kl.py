"""Every KL of the project, in nats: one function, whoever needs a KL, and the Best-of-N bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "exact"]
KLOf = Literal["policy", "sampler"]


@dataclass(frozen=True)
class Decoding:
    """How completions were drawn. The defaults draw from π itself."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Only the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""


def kl_terms(
    policy: Tensor, reference: Tensor, *, estimator: Estimator, decoding: Decoding | None = None, kl_of: KLOf = "policy"
) -> Tensor:
    """The terms of KL(π‖π_ref), one per token, or one per completion if given summed log-probs.

    With y ~ π and d = log π(y) - log π_ref(y) (Schulman 2020, joschu.net/blog/kl-approx.html):
    k1 = d: unbiased, may be negative.   k2 = d²/2: biased, never negative.   k3 = e^(-d) - 1 + d: unbiased, never negative.
    exact = Σ_v π(v)·[log π(v) - log π_ref(v)] over the vocabulary: the next-token KL itself, never negative.

    Samples drawn with a temperature other than 1, top-k or top-p are not samples of π, and no average over them is
    KL(π‖π_ref). Such a number is refused unless `kl_of="sampler"` says that KL(sampler‖π_ref) is meant; `policy` must then hold
    log-probs of the sampler (`decoding_log_probs`).

    Args:
        policy: log π in nats: of the sampled tokens (or completions), any shape; for `exact` of the whole vocabulary,
            normalised, shape (..., vocabulary).
        reference: log π_ref, same shape.
        estimator: Which one.
        decoding: How y was drawn; None: from π itself.
        kl_of: Which distribution's KL to π_ref is meant.

    Returns:
        Nats; shape of `policy`, without the vocabulary for `exact`.

    Raises:
        ValueError: Shapes differ, or y was not drawn from the distribution that is meant.
    """
    if policy.shape != reference.shape:
        raise ValueError(f"reference: expected shape {tuple(policy.shape)} like policy, got {tuple(reference.shape)}")
    check_kl_of(decoding or Decoding(), kl_of)
    if estimator == "exact":
        possible = policy > -math.inf
        difference = torch.where(possible, policy - reference, 0.0)
        return (policy.exp() * difference).sum(-1)
    d = policy - reference
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        return torch.expm1(-d) + d
    raise ValueError(f"estimator: expected k1, k2, k3 or exact, got {estimator!r}")


def sequence_kl(
    policy: Tensor,
    reference: Tensor,
    mask: Tensor,
    *,
    estimator: Estimator,
    decoding: Decoding | None = None,
    kl_of: KLOf = "policy",
) -> Tensor:
    """Sequence-level KL(π‖π_ref): `kl_terms` of every token, summed over completion tokens.

    By the chain rule the sum of an unbiased per-token term is unbiased for KL(π(·|x)‖π_ref(·|x)). `exact` sums the next-token
    KLs along the sampled completion: never negative, its variance usually, not always, lower. The sum of per-token k3 is
    another (and better behaved) estimate than k3 of summed log-probs.

    Args:
        policy: As in `kl_terms`, shape (batch, time) or, for `exact`, (batch, time, vocabulary).
        reference: Same shape.
        mask: True on completion tokens. Shape (batch, time), bool.
        estimator: As in `kl_terms`, like the two below.
        decoding: How the completions were drawn.
        kl_of: Which distribution's KL to π_ref is meant.

    Returns:
        Nats per completion, shape (batch,).

    Raises:
        ValueError: As `kl_terms`, or the mask's shape differs.
    """
    terms = kl_terms(policy, reference, estimator=estimator, decoding=decoding, kl_of=kl_of)
    if terms.shape != mask.shape or mask.ndim != 2:
        raise ValueError(f"mask: expected shape (batch, time) {tuple(terms.shape)}, got {tuple(mask.shape)}")
    return torch.where(mask, terms, 0.0).sum(-1)


def check_kl_of(decoding: Decoding, kl_of: KLOf) -> None:
    """Refuse to call an average over samples of one distribution the KL of another.

    Raises:
        ValueError: The samples were not drawn from π and `kl_of` is "policy".
    """
    if kl_of not in ("policy", "sampler"):
        raise ValueError(f"kl_of: expected 'policy' or 'sampler', got {kl_of!r}")
    if kl_of == "policy" and decoding != Decoding():
        raise ValueError(
            f"{decoding}: these are not samples of π, so their average is not KL(π‖π_ref); draw at temperature 1 without top-k "
            f"or top-p, or say kl_of='sampler' if KL(sampler‖π_ref) is meant"
        )


def decoding_log_probs(log_probs: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs of the distribution that `decoding` really draws from: tempered, cut to top-k, then to top-p, renormalised.

    Args:
        log_probs: log π(·) in nats, normalised. Shape (..., vocabulary).
        decoding: Ties at the edge of top-k or top-p are kept.

    Returns:
        Same shape; -inf for tokens that cannot be drawn.

    Raises:
        ValueError: A setting is out of range.
    """
    temperature, top_k, top_p = decoding.temperature, decoding.top_k, decoding.top_p
    if not 0 <= temperature < math.inf or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"expected temperature ≥ 0, top_k ≥ 0 and 0 < top_p ≤ 1, got {decoding}")
    if temperature == 0:  # greedy
        first = torch.zeros_like(log_probs, dtype=torch.bool).scatter(-1, log_probs.argmax(-1, keepdim=True), True)
        return torch.where(first, 0.0, -math.inf)
    tempered = (log_probs / temperature).log_softmax(-1)
    ordered = tempered.sort(-1, descending=True).values
    if 0 < top_k < ordered.shape[-1]:
        tempered = tempered.masked_fill(tempered < ordered[..., top_k - 1, None], -math.inf).log_softmax(-1)
        ordered = tempered.sort(-1, descending=True).values
    if top_p < 1:
        before = ordered.exp().cumsum(-1) - ordered.exp()  # probability of all more likely tokens
        least = torch.where(before < top_p, ordered, math.inf).amin(-1, keepdim=True)
        tempered = tempered.masked_fill(tempered < least, -math.inf)
    return tempered.log_softmax(-1)


def best_of_n_kl_bound(n: int) -> float:
    """Upper bound on KL(best of n ‖ base) in nats: log n - (n - 1)/n (Beirami et al. 2024, arXiv:2401.01879).

    Equality holds only if no two completions tie; elsewhere it is a bound, never an estimate.

    Raises:
        ValueError: `n` < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    return math.log(n) - (n - 1) / n
