"""Hand-computed arrays, with padding."""

import math

import pytest
import torch

from suite.maths.policy_gradient import clipped_value_loss, gae, masked_mean, masked_whiten, ppo_clip_loss


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


MASK = torch.tensor([[True, True, True], [True, True, False]])
REWARDS = rows([0.0, 0.0, 1.0], [0.5, 2.0, 99.0])
VALUES = rows([0.1, 0.2, 0.4], [1.0, 1.5, 99.0])


def test_gae_by_hand():
    """γ = 0.9, λ = 0.5. Row 1: δ_3 = 1 - 0.4 = 0.6, δ_2 = 0.9·0.4 - 0.2 = 0.16, δ_1 = 0.9·0.2 - 0.1 = 0.08;
    A_3 = 0.6, A_2 = 0.16 + 0.45·0.6 = 0.43, A_1 = 0.08 + 0.45·0.43 = 0.2735.
    Row 2 ends a token earlier: δ_2 = 2 - 1.5 = 0.5, δ_1 = 0.5 + 0.9·1.5 - 1 = 0.85; A_2 = 0.5, A_1 = 0.85 + 0.45·0.5 = 1.075.
    """
    advantages, returns = gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.5)
    expected = rows([0.2735, 0.43, 0.6], [1.075, 0.5, 0.0])
    assert torch.allclose(advantages, expected, atol=1e-12)
    assert torch.allclose(returns, (expected + VALUES) * MASK, atol=1e-12)


def test_gae_with_lambda_1_is_return_minus_value_and_with_0_one_step():
    advantages, _ = gae(REWARDS, VALUES, MASK, gamma=1.0, lam=1.0)
    assert torch.allclose(advantages, rows([0.9, 0.8, 0.6], [1.5, 0.5, 0.0]))
    advantages, _ = gae(REWARDS, VALUES, MASK, gamma=1.0, lam=0.0)
    assert torch.allclose(advantages, rows([0.1, 0.2, 0.6], [1.0, 0.5, 0.0]))


def test_padding_changes_nothing():
    wide = torch.nn.functional.pad
    advantages, returns = gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.5)
    padded = gae(wide(REWARDS, (0, 2), value=7), wide(VALUES, (0, 2), value=7), wide(MASK, (0, 2)), gamma=0.9, lam=0.5)
    for short, long in zip((advantages, returns), padded, strict=True):
        assert torch.equal(long[:, :3], short)
        assert (long[:, 3:] == 0).all()


def test_whatever_stands_in_the_padding_stays_there():
    broken = REWARDS.clone()
    broken[1, 2] = float("nan")
    for found, expected in zip(
        gae(broken, VALUES, MASK, gamma=0.9, lam=0.5), gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.5), strict=True
    ):
        assert torch.equal(found, expected)
    assert torch.isfinite(masked_whiten(broken, MASK)).all()


def test_whitening_by_hand():
    """1, 2, 3, 4, 5 under the mask: mean 3, variance 2; the padding's 99 counts for nothing and becomes 0."""
    white = masked_whiten(rows([1.0, 2.0, 3.0], [4.0, 5.0, 99.0]), MASK)
    s = math.sqrt(2)
    assert torch.allclose(white, rows([-2 / s, -1 / s, 0.0], [1 / s, 2 / s, 0.0]), atol=1e-7)
    assert masked_mean(rows([1.0, 2.0, 3.0], [4.0, 5.0, 99.0]), MASK).item() == 3


def test_the_policy_loss_by_hand():
    """ρ = 1.5 with ε = 0.2: a good token counts 1.2, a bad one its full 1.5; ρ = 0.5: a good one 0.5, a bad one 0.8."""
    old = torch.zeros(1, 4, dtype=torch.float64)
    new = rows([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    losses = ppo_clip_loss(new, old, rows([1.0, -1.0, 1.0, -1.0]), clip_range=0.2)
    assert torch.allclose(losses, rows([-1.2, 1.5, -0.5, 0.8]))
    losses.sum().backward()
    assert torch.allclose(new.grad, rows([0.0, 1.5, -0.5, 0.0]))  # where the clip binds, nothing pushes


def test_the_first_minibatch_is_the_plain_policy_gradient():
    old = rows([-1.0, -2.0, -0.5])
    new = old.clone().requires_grad_()
    advantages = rows([0.3, -2.0, 1.0])
    ppo_clip_loss(new, old, advantages, clip_range=0.2).sum().backward()
    assert torch.allclose(new.grad, -advantages)


def test_the_value_loss_by_hand():
    """ε = 0.2, old value 0. Value 0.5, return 1: ½·max(0.25, 0.64) = 0.32, clipped: no gradient. Return 0.1: ½·0.16 = 0.08."""
    values = rows([0.5, 0.5, 0.1]).requires_grad_()
    losses = clipped_value_loss(values, torch.zeros(1, 3, dtype=torch.float64), rows([1.0, 0.1, 1.0]), clip_range=0.2)
    assert torch.allclose(losses, rows([0.32, 0.08, 0.405]))
    losses.sum().backward()
    assert torch.allclose(values.grad, rows([0.0, 0.4, -0.9]))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: gae(x, x[:, :1], x > 0, gamma=1.0, lam=1.0), "values"),
        (lambda x: gae(x, x, torch.tensor([[True, False, True]]), gamma=1.0, lam=1.0), "gaps"),
        (lambda x: gae(x, x, x > 0, gamma=1.5, lam=1.0), "gamma"),
        (lambda x: gae(x.long(), x, x > 0, gamma=1.0, lam=1.0), "rewards"),
        (lambda x: gae(x, x, x, gamma=1.0, lam=1.0), "mask"),
        (lambda x: masked_mean(x, torch.zeros(1, 3, dtype=torch.bool)), "nothing"),
        (lambda x: ppo_clip_loss(x, x, x[:, :2], clip_range=0.2), "advantages"),
        (lambda x: ppo_clip_loss(x, x, x, clip_range=0.0), "clip_range"),
        (lambda x: clipped_value_loss(x, x, x[0], clip_range=0.2), "returns"),
        (lambda x: clipped_value_loss(x, x, x, clip_range=-1.0), "clip_range"),
    ],
)
def test_errors_name_the_argument(call, word):
    with pytest.raises(ValueError, match=word):
        call(torch.zeros(1, 3))
