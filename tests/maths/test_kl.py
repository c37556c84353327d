import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.maths.best_of_n import best_of_n_kl_bound
from suite.maths.kl import kl_terms, sequence_kl, tempered_log_probs


def test_exact_by_hand_and_outside_the_mask_nothing_counts():
    # π = (3/4, 1/4), π_ref = (1/2, 1/2): KL = 3/4·log(3/2) + 1/4·log(1/2)
    policy = torch.tensor([[[0.75, 0.25], [0.75, 0.25], [0.9, 0.1]]]).log()
    reference = torch.full_like(policy, 0.5).log()
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    mask = torch.tensor([[True, True, False]])
    assert sequence_kl(policy, reference, mask, estimator="exact").item() == pytest.approx(2 * one, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_exact_is_never_negative_and_zero_only_for_equals(seed):
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert (sequence_kl(p, q, mask, estimator="exact") > 0).all()
    assert torch.equal(sequence_kl(p, p, mask, estimator="exact"), torch.zeros(2, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_k1_and_k3_are_unbiased_and_k2_is_not(seed):
    """Expectations by summing over the whole vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    kl = (p.exp() * (p - q)).sum().item()
    for estimator in ("k1", "k3"):
        assert (p.exp() * kl_terms(p, q, estimator=estimator)).sum().item() == pytest.approx(kl, rel=1e-9)
    assert abs((p.exp() * kl_terms(p, q, estimator="k2")).sum() - kl) > 1e-6


def test_signs():
    d = torch.tensor([-0.5, 0.5])
    assert kl_terms(d, torch.zeros(2), estimator="k1").tolist() == [-0.5, 0.5]
    assert (kl_terms(d, torch.zeros(2), estimator="k3") > 0).all()


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
    with pytest.raises(ValueError, match="reference"):
        kl_terms(torch.zeros(2), torch.zeros(3), estimator="k1")
    with pytest.raises(ValueError, match="mask"):
        sequence_kl(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool), estimator="exact")
    with pytest.raises(ValueError, match="estimator"):
        kl_terms(torch.zeros(2), torch.zeros(2), estimator="k4")


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_samples_of_another_distribution_are_refused(temperature):
    logps = torch.zeros(1, 2)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for estimator in ("k1", "k2", "k3"):
        with pytest.raises(ValueError, match="not samples of π"):
            sequence_kl(logps, logps, mask, estimator=estimator, temperature=temperature)
    with pytest.raises(ValueError, match="not samples of π"):
        kl_terms(logps, logps, estimator="exact", temperature=temperature)
    assert sequence_kl(logps, logps, mask, estimator="k1", temperature=temperature, kl_of="sampler").item() == 0
    with pytest.raises(ValueError, match="kl_of"):
        kl_terms(logps, logps, estimator="k1", kl_of="base")


def test_temperatures_by_hand():
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)

    def drawn(temperature):
        return tempered_log_probs(p.log(), temperature).exp().tolist()

    assert drawn(1.0) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert drawn(0.5) == pytest.approx([x / 0.30 for x in (0.16, 0.09, 0.04, 0.01)])
    assert drawn(0.0) == [1, 0, 0, 0]
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            drawn(bad)
    # KL(sampler‖π_ref) of a distribution with impossible tokens is finite and exact
    greedy, reference = tempered_log_probs(p.log(), 0.0), torch.full((4,), 0.25, dtype=torch.float64).log()
    assert kl_terms(greedy, reference, estimator="exact", temperature=0.0, kl_of="sampler").item() == pytest.approx(math.log(4))


def test_the_exact_kl_has_a_gradient_where_a_token_is_impossible():
    logits = torch.tensor([0.3, 0.1, -math.inf], dtype=torch.float64, requires_grad=True)
    kl_terms(logits.log_softmax(-1), torch.full((3,), 1 / 3, dtype=torch.float64).log(), estimator="exact").backward()
    assert torch.isfinite(logits.grad).all()
