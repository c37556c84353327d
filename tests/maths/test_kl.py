import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.maths.kl import best_of_n_kl_bound, exact_per_step_kl, sampled_kl


def test_exact_by_hand_and_outside_the_mask_nothing_counts():
    # π = (3/4, 1/4), π_ref = (1/2, 1/2): KL = 3/4·log(3/2) + 1/4·log(1/2)
    policy = torch.tensor([[[0.75, 0.25], [0.75, 0.25], [0.9, 0.1]]]).log()
    reference = torch.full_like(policy, 0.5).log()
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    mask = torch.tensor([[True, True, False]])
    assert exact_per_step_kl(policy, reference, mask).item() == pytest.approx(2 * one, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_exact_is_never_negative_and_zero_only_for_equals(seed):
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert (exact_per_step_kl(p, q, mask) > 0).all()
    assert torch.equal(exact_per_step_kl(p, p, mask), torch.zeros(2, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_k1_and_k3_are_unbiased_and_k2_is_not(seed):
    """Expectations by summing over the whole vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    kl = (p.exp() * (p - q)).sum().item()
    for estimator in ("k1", "k3"):
        assert (p.exp() * sampled_kl(p, q, estimator=estimator)).sum().item() == pytest.approx(kl, rel=1e-9)
    assert abs((p.exp() * sampled_kl(p, q, estimator="k2")).sum() - kl) > 1e-6


def test_signs():
    d = torch.tensor([-0.5, 0.5])
    assert sampled_kl(d, torch.zeros(2)).tolist() == [-0.5, 0.5]
    assert (sampled_kl(d, torch.zeros(2), estimator="k3") > 0).all()


def test_best_of_n_bound_holds_by_enumeration():
    """Best of n from a uniform distribution over 50 different rewards: KL is at most the bound."""
    ranks = torch.arange(1, 51, dtype=torch.float64)
    for n in (1, 2, 4, 16):
        best = (ranks / 50) ** n - ((ranks - 1) / 50) ** n
        kl = (best * (best * 50).clamp_min(1e-300).log()).sum().item()
        assert kl <= best_of_n_kl_bound(n) + 1e-12
    assert best_of_n_kl_bound(1) == 0
    with pytest.raises(ValueError, match="n:"):
        best_of_n_kl_bound(0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="reference_logps"):
        sampled_kl(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="shapes"):
        exact_per_step_kl(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool))
