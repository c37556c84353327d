"""Every KL of the project, in nats: one function, whoever needs a KL."""

import math
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "exact"]
KLOf = Literal["policy", "sampler"]
MAX_SAMPLER_KL = 0.01
"""Nats per completion by which completions may be from the policy that is scored."""


def kl_terms(
    policy: Tensor, reference: Tensor, *, estimator: Estimator, temperature: float = 1.0, kl_of: KLOf = "policy"
) -> Tensor:
    """The terms of KL(π‖π_ref), one per token, or one per completion if given summed log-probs.

    With y ~ π and d = log π(y) - log π_ref(y) (Schulman 2020, joschu.net/blog/kl-approx.html):
    k1 = d: unbiased, may be negative.   k2 = d²/2: biased, never negative.   k3 = e^(-d) - 1 + d: unbiased, never negative.
    exact = Σ_v π(v)·[log π(v) - log π_ref(v)] over the vocabulary: the next-token KL itself, never negative.

    Samples drawn at a temperature other than 1 are not samples of π, and no average over them is KL(π‖π_ref). Such a number is
    refused unless `kl_of="sampler"` says that KL(sampler‖π_ref) is meant; `policy` must then hold log-probs of the sampler
    (`tempered_log_probs`).

    Args:
        policy: log π in nats: of the sampled tokens (or completions), any shape; for `exact` of the whole vocabulary,
            normalised, shape (..., vocabulary).
        reference: log π_ref, same shape.
        temperature: At which y was drawn; 1: from π itself, 0: greedily.

    Returns:
        Nats; shape of `policy`, without the vocabulary for `exact`.

    Raises:
        ValueError: Shapes differ, or y was not drawn from the distribution that is meant.
    """
    if policy.shape != reference.shape:
        raise ValueError(f"reference: expected shape {tuple(policy.shape)} like policy, got {tuple(reference.shape)}")
    check_kl_of(temperature, kl_of)
    if estimator == "exact":
        return (policy.exp() * torch.where(policy > -math.inf, policy - reference, 0.0)).sum(-1)
    d = policy - reference
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        return torch.expm1(-d) + d
    raise ValueError(f"estimator: expected k1, k2, k3 or exact, got {estimator!r}")


def sequence_kl(
    policy: Tensor, reference: Tensor, mask: Tensor, *, estimator: Estimator, temperature: float = 1.0, kl_of: KLOf = "policy"
) -> Tensor:
    """Sequence-level KL(π‖π_ref): `kl_terms` of every token, summed over completion tokens.

    By the chain rule the sum of an unbiased per-token term is unbiased for KL(π(·|x)‖π_ref(·|x)). `exact` sums the next-token
    KLs along the sampled completion: never negative, its variance usually, not always, lower. The sum of per-token k3 is
    another (and better behaved) estimate than k3 of summed log-probs.

    Args:
        policy: As in `kl_terms`, like all but `mask`; shape (batch, time) or, for `exact`, (batch, time, vocabulary).
        mask: True on completion tokens. Shape (batch, time), bool.

    Returns:
        Nats per completion, shape (batch,).

    Raises:
        ValueError: As `kl_terms`, or the mask's shape differs.
    """
    terms = kl_terms(policy, reference, estimator=estimator, temperature=temperature, kl_of=kl_of)
    if terms.shape != mask.shape or mask.ndim != 2:
        raise ValueError(f"mask: expected shape (batch, time) {tuple(terms.shape)}, got {tuple(mask.shape)}")
    return torch.where(mask, terms, 0.0).sum(-1)


def check_kl_of(temperature: float, kl_of: KLOf) -> None:
    """Refuse to call an average over samples of one distribution the KL of another.

    Raises:
        ValueError: The samples were not drawn from π and `kl_of` is "policy".
    """
    if kl_of not in ("policy", "sampler"):
        raise ValueError(f"kl_of: expected 'policy' or 'sampler', got {kl_of!r}")
    if kl_of == "policy" and temperature != 1:
        raise ValueError(
            f"samples at temperature {temperature} are not samples of π, so their average is not KL(π‖π_ref); draw at "
            f"temperature 1, or say kl_of='sampler' if KL(sampler‖π_ref) is meant"
        )


def tempered_log_probs(log_probs: Tensor, temperature: float) -> Tensor:
    """Log-probs of the distribution that is drawn from at a temperature: log π(·)/T, renormalised.

    Args:
        log_probs: log π(·) in nats, normalised. Shape (..., vocabulary), as the result, where -inf marks what cannot be drawn.
        temperature: T ≥ 0; 0 is greedy.

    Raises:
        ValueError: The temperature is out of range.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature: expected a number ≥ 0, got {temperature}")
    if temperature == 0:
        first = torch.zeros_like(log_probs, dtype=torch.bool).scatter(-1, log_probs.argmax(-1, keepdim=True), True)
        return torch.where(first, 0.0, -math.inf)
    return (log_probs / temperature).log_softmax(-1)
