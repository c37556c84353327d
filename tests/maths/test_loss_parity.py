"""Every loss and its gradient against its published formula, written again in plain numpy, in float64 to 1e-10."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.maths.losses import (
    bradley_terry_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    nll_loss,
    plackett_luce_dpo_loss,
    robust_dpo_loss,
    unlikelihood_loss,
    welleck_unlikelihood_loss,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# name → our loss, the published L(h) and dL/dh, with h the difference of log-ratios
PAIRWISE = {
    "dpo": (
        lambda four, b: dpo_loss(*four, beta=b),
        lambda h, b: -np.log(sigmoid(b * h)),
        lambda h, b: -b * sigmoid(-b * h),
    ),
    "cdpo": (
        lambda four, b: dpo_loss(*four, beta=b, label_smoothing=0.2),
        lambda h, b: -0.8 * np.log(sigmoid(b * h)) - 0.2 * np.log(sigmoid(-b * h)),
        lambda h, b: b * (sigmoid(b * h) - 0.8),
    ),
    "robust": (
        lambda four, b: robust_dpo_loss(*four, beta=b, label_smoothing=0.2, max_margin=math.inf),
        lambda h, b: (-0.8 * np.log(sigmoid(b * h)) + 0.2 * np.log(sigmoid(-b * h))) / 0.6,
        lambda h, b: b * (-0.8 * sigmoid(-b * h) - 0.2 * sigmoid(b * h)) / 0.6,
    ),
    "ipo": (
        lambda four, b: ipo_loss(*four, beta=b),
        lambda h, b: (h - 1 / (2 * b)) ** 2,
        lambda h, b: 2 * (h - 1 / (2 * b)),
    ),
    "hinge": (
        lambda four, b: hinge_loss(*four, beta=b),
        lambda h, b: np.maximum(0, 1 - b * h),
        lambda h, b: np.where(b * h < 1, -b, 0.0),
    ),
}  # fmt: skip


def batch(seed, *shape, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", PAIRWISE)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.05, 3.0))
def test_pairwise_parity(name, seed, beta):
    ours, value, slope = PAIRWISE[name]
    four = list(batch(seed, 4, 8) - 5)
    for side in four[:2]:
        side.requires_grad_()
    losses = ours(four, beta)
    losses.sum().backward()
    pw, pl, rw, rl = (t.detach().numpy() for t in four)
    h = (pw - rw) - (pl - rl)
    np.testing.assert_allclose(losses.detach().numpy(), value(h, beta), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(four[0].grad.numpy(), slope(h, beta), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(four[1].grad.numpy(), -slope(h, beta), rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.05, 3.0))
def test_plackett_luce_parity(seed, beta):
    """The product over places of softmax probabilities, with rankings of 2 to 5; gradient by central differences of it."""
    policy, reference = batch(seed, 4, 5), batch(seed + 1, 4, 5)
    lengths = [2, 3, 4, 5]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]

    def by_formula(logps):
        total = []
        for p, r, k in zip(logps, reference.numpy(), lengths, strict=True):
            score = np.exp(beta * (p[:k] - r[:k]))
            total.append(-np.log(np.prod([score[i] / score[i:].sum() for i in range(k)])))
        return np.array(total)

    policy.requires_grad_()
    losses = plackett_luce_dpo_loss(policy, reference, mask, beta=beta)
    np.testing.assert_allclose(losses.detach().numpy(), by_formula(policy.detach().numpy()), rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lambda p: plackett_luce_dpo_loss(p, reference, mask, beta=beta), policy, atol=1e-7)
    losses.sum().backward()
    assert (policy.grad[~mask] == 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.05, 3.0))
def test_plackett_luce_of_two_is_dpo(seed, beta):
    policy, reference = batch(seed, 6, 2), batch(seed + 1, 6, 2)
    both = torch.ones(6, 2, dtype=torch.bool)
    of_two = plackett_luce_dpo_loss(policy, reference, both, beta=beta)
    pair = dpo_loss(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], beta=beta)
    assert torch.allclose(of_two, pair, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_bradley_terry_parity(seed):
    chosen, rejected, margin = (t.requires_grad_() for t in batch(seed, 3, 7))
    losses = bradley_terry_loss(chosen, rejected, margin=margin)
    losses.sum().backward()
    d = (chosen - rejected - margin).detach().numpy()
    np.testing.assert_allclose(losses.detach().numpy(), -np.log(sigmoid(d)), rtol=1e-10, atol=1e-10)
    for tensor, sign in ((chosen, -1), (rejected, 1), (margin, 1)):
        np.testing.assert_allclose(tensor.grad.numpy(), sign * sigmoid(-d), rtol=1e-10, atol=1e-10)
    assert torch.equal(bradley_terry_loss(chosen, rejected), bradley_terry_loss(chosen, rejected, margin=torch.zeros(7)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(0, 1))
def test_unlikelihood_parity(seed, alpha):
    chosen, rejected = (t.requires_grad_() for t in batch(seed, 2, 5))
    losses = unlikelihood_loss(chosen, rejected, alpha=alpha)
    losses.sum().backward()
    np.testing.assert_allclose(losses.detach(), (-chosen + alpha * rejected).detach(), atol=1e-10)
    assert torch.equal(chosen.grad, -torch.ones(5, dtype=torch.float64))
    np.testing.assert_allclose(rejected.grad, np.full(5, alpha), atol=1e-10)
    assert torch.equal(nll_loss(chosen), -chosen)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(0, 2))
def test_welleck_parity(seed, alpha):
    """L = -log π(y_w) - α·Σ log(1 - p_t); ∂L/∂log p_t = α·p_t/(1 - p_t); nothing from the padding."""
    chosen, tokens = batch(seed, 3), -batch(seed + 1, 3, 4, scale=1.0).abs() - 0.05
    mask = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    chosen.requires_grad_()
    tokens.requires_grad_()
    losses = welleck_unlikelihood_loss(chosen, tokens, mask, alpha=alpha)
    losses.sum().backward()
    p, m = np.exp(tokens.detach().numpy()), mask.numpy()
    np.testing.assert_allclose(
        losses.detach().numpy(), -chosen.detach().numpy() - alpha * (np.log(1 - p) * m).sum(1), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(tokens.grad.numpy(), alpha * p / (1 - p) * m, rtol=1e-10, atol=1e-10)


def test_welleck_is_bounded_where_the_papers_is_not():
    far = torch.tensor([[-1e4]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.float64)
    assert welleck_unlikelihood_loss(zero, far, one, alpha=1.0).item() == 0
    assert unlikelihood_loss(zero, far[0], alpha=1.0).item() == -1e4
    certain = welleck_unlikelihood_loss(zero, 0 * far, one, alpha=1.0)
    assert math.isfinite(certain.item())
    assert certain.item() > 30


def four(margin):
    return [torch.tensor([x], dtype=torch.float64, requires_grad=x == margin) for x in (margin, 0.0, 0.0, 0.0)]


def test_robust_dpo_is_unbounded_below_and_guarded():
    def at(margin, **guard):
        return robust_dpo_loss(*four(margin), beta=1.0, label_smoothing=0.1, **guard).item()

    assert at(1000.0, max_margin=math.inf) < at(100.0, max_margin=math.inf) < -10
    assert at(1000.0) == at(100.0) == at(10.0)
    assert at(9.0) == at(9.0, max_margin=math.inf)
    sides = four(50.0)
    robust_dpo_loss(*sides, beta=1.0, label_smoothing=0.1).backward()
    assert sides[0].grad.item() == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.01, 0.45))
def test_robust_dpo_is_unbiased_for_the_clean_loss(seed, epsilon):
    """Averaged over labels flipped with probability ε, it is the DPO loss of the clean labels (Chowdhury et al. 2024)."""
    sides = list(batch(seed, 4, 6, scale=1.0))
    flipped = [sides[1], sides[0], sides[3], sides[2]]
    keywords = {"beta": 0.7, "label_smoothing": epsilon}
    mean = (1 - epsilon) * robust_dpo_loss(*sides, **keywords) + epsilon * robust_dpo_loss(*flipped, **keywords)
    assert max(abs(0.7 * ((sides[0] - sides[2]) - (sides[1] - sides[3])))) < 10  # where the guard does not bind
    assert torch.allclose(mean, dpo_loss(*sides, beta=0.7), rtol=0, atol=1e-10)


def test_conservative_dpo_has_a_finite_minimum_and_without_smoothing_is_dpo():
    margins = torch.linspace(-5, 15, 2001, dtype=torch.float64)
    nothing = torch.zeros_like(margins)
    losses = dpo_loss(margins, nothing, nothing, nothing, beta=0.5, label_smoothing=0.1)
    assert 0.5 * margins[losses.argmin()].item() == pytest.approx(math.log(9), abs=0.01)
    sides = list(batch(0, 4, 6))
    assert torch.equal(dpo_loss(*sides, beta=0.3, label_smoothing=0.0), dpo_loss(*sides, beta=0.3))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: dpo_loss(x, x, x, x, beta=1.0, label_smoothing=0.5), "label_smoothing"),
        (lambda x: robust_dpo_loss(x, x, x, x, beta=1.0, label_smoothing=-0.1), "label_smoothing"),
        (lambda x: robust_dpo_loss(x, x, x, x, beta=0.0, label_smoothing=0.1), "beta"),
        (lambda x: robust_dpo_loss(x, x, x, x, beta=1.0, label_smoothing=0.1, max_margin=-3.0), "max_margin"),
        (lambda x: dpo_loss(x, x, x, x, beta=math.inf), "beta"),
        (lambda x: ipo_loss(x, x, x, x, beta=-1.0), "beta"),
        (lambda x: hinge_loss(x, x, x, x[:1], beta=1.0), "reference_rejected_logps"),
        (lambda x: bradley_terry_loss(x, x[:1]), "rejected_rewards"),
        (lambda x: bradley_terry_loss(x, x, margin=x[:1]), "margin"),
        (lambda x: plackett_luce_dpo_loss(x, x, x > 0, beta=1.0), "shape"),
        (lambda x: plackett_luce_dpo_loss(x[None], x[None], torch.tensor([[True, False]]), beta=1.0), "mask"),
        (lambda x: plackett_luce_dpo_loss(x[None], x[None], torch.tensor([[True, True]]), beta=0.0), "beta"),
        (lambda x: welleck_unlikelihood_loss(x, x, x > 0, alpha=1.0), "policy_rejected_token_logps"),
        (lambda x: welleck_unlikelihood_loss(x, x[:, None], x[:, None] > 9, alpha=-1.0), "alpha"),
    ],
)
def test_errors_name_the_argument(call, word):
    with pytest.raises(ValueError, match=word):
        call(torch.zeros(2))


def test_a_ranking_with_a_gap_is_refused():
    x = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="gaps"):
        plackett_luce_dpo_loss(x, x, torch.tensor([[True, True, False, True]]), beta=1.0)
