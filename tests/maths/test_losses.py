import math

import pytest
import torch

from suite.maths.losses import dpo_loss, implicit_reward_metrics, nll_loss, unlikelihood_loss


def tensors(*rows):
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def test_dpo_by_hand():
    # h = (-1 - -2) - (-5 - -4) = 1 + 1 = 2; β·h = 1; -log σ(1) = log(1 + e^-1)
    loss = dpo_loss(*tensors([-1.0], [-5.0], [-2.0], [-4.0]), beta=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-12)


def test_dpo_is_log_2_at_the_reference():
    logps = tensors([-1.0, -7.5], [-5.0, -2.0])
    assert torch.allclose(dpo_loss(*logps, *logps, beta=3.0), torch.full((2,), math.log(2), dtype=torch.float64))


def test_dpo_gradient_weight():
    """Sec. 4: ∂L/∂log π(y_w) = -β·σ(r̂_l - r̂_w), and the opposite for y_l."""
    logps = tensors([-1.0, -3.0], [-5.0, -2.0], [-2.0, -2.5], [-4.0, -2.0])
    chosen, rejected = (t.requires_grad_() for t in logps[:2])
    dpo_loss(chosen, rejected, *logps[2:], beta=0.3).sum().backward()
    margin = 0.3 * ((chosen - logps[2]) - (rejected - logps[3]))
    expected = -0.3 * torch.sigmoid(-margin)
    assert torch.allclose(chosen.grad, expected)
    assert torch.allclose(rejected.grad, -expected)


def test_unlikelihood_by_hand_and_unbounded():
    assert unlikelihood_loss(*tensors([-1.0], [-5.0]), alpha=0.1).item() == pytest.approx(1 - 0.5)
    far = unlikelihood_loss(*tensors([-1.0], [-1e6]), alpha=0.1).item()
    assert far < -9e4


def test_unlikelihood_without_alpha_is_preferred_ft():
    chosen, rejected = tensors([-1.0, -2.0], [-5.0, -6.0])
    assert torch.equal(unlikelihood_loss(chosen, rejected, alpha=0.0), nll_loss(chosen))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: dpo_loss(*tensors([1.0], [1.0], [1.0], [1.0]), beta=0.0), "beta"),
        (lambda: dpo_loss(*tensors([1.0], [1.0], [1.0], [1.0, 2.0]), beta=1.0), "reference_rejected_logps"),
        (lambda: dpo_loss(*tensors([[1.0]], [[1.0]], [[1.0]], [[1.0]]), beta=1.0), "policy_chosen_logps"),
        (lambda: unlikelihood_loss(*tensors([1.0], [1.0]), alpha=1.5), "alpha"),
        (lambda: unlikelihood_loss(*tensors([1.0], [1.0, 2.0]), alpha=0.5), "policy_rejected_logps"),
    ],
)
def test_errors_name_the_argument(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_metrics_by_hand():
    metrics = implicit_reward_metrics(*tensors([-1.0, -3.0], [-5.0, -1.0], [-2.0, -2.0], [-4.0, -2.0]), beta=2.0)
    assert metrics["rewards/chosen"].tolist() == [2.0, -2.0]
    assert metrics["rewards/rejected"].tolist() == [-2.0, 2.0]
    assert metrics["rewards/margins"].tolist() == [4.0, -4.0]
    assert metrics["rewards/accuracies"].tolist() == [1.0, 0.0]
    assert metrics["gradient_weight"].tolist() == pytest.approx(
        [1 / (1 + math.exp(m)) for m in metrics["rewards/margins"].tolist()]
    )
