import pytest
import torch

from suite.maths.sequence_log_probs import ROWS_AT_ONCE, linear_token_log_probs, token_log_probs


def batch():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4)
    ids = torch.tensor([[1, 2, 3, 0, 0], [3, 1, 1, 2, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]).bool()
    return logits, ids, mask


def test_every_token_is_scored_by_the_logits_before_it():
    logits, ids, mask = batch()
    expected = torch.zeros(2, 4)
    for row in range(2):
        for t in range(1, 5):
            if mask[row, t]:
                expected[row, t - 1] = logits[row, t - 1].log_softmax(-1)[ids[row, t]]
    assert torch.allclose(token_log_probs(logits, ids, mask), expected, atol=1e-6)


def test_gradient_flows_only_from_the_scored_positions():
    logits, ids, mask = batch()
    logits.requires_grad_()
    token_log_probs(logits, ids, mask).sum().backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert torch.equal(touched[:, :-1], mask[:, 1:])
    assert not touched[:, -1].any()


def test_bad_masks_are_refused():
    logits, ids, mask = batch()
    for bad in (torch.zeros_like(mask), mask | torch.tensor([1, 0, 0, 0, 0]).bool()):
        with pytest.raises(ValueError, match="completion_mask"):
            token_log_probs(logits, ids, bad)
    with pytest.raises(ValueError, match="shapes"):
        token_log_probs(logits, ids[:, :-1], mask)


@pytest.mark.parametrize("biased", [False, True])
def test_from_states_as_from_logits_with_the_same_gradients(biased):
    torch.manual_seed(1)
    rows, length, hidden, vocabulary = 40, 12, 5, 7
    ids = torch.randint(vocabulary, (rows, length))
    mask = torch.rand(rows, length) < 0.8
    mask[:, 0], mask[:, 1] = False, True
    assert mask.sum() > ROWS_AT_ONCE  # several parts
    arrays = [torch.randn(rows, length, hidden), torch.randn(vocabulary, hidden), torch.randn(vocabulary) if biased else None]
    upstream, found = torch.randn(rows, length - 1), []
    for from_states in (True, False):
        leaves = [None if array is None else array.clone().requires_grad_() for array in arrays]
        if from_states:
            values = linear_token_log_probs(*leaves, ids, mask)
        else:
            values = token_log_probs(torch.nn.functional.linear(*leaves), ids, mask)
        (values * upstream).sum().backward()
        found.append([values.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for mine, plain in zip(*found, strict=True):
        assert torch.allclose(mine, plain, atol=2e-5)


def test_a_frozen_output_layer_gets_no_gradient():
    states, weight = torch.randn(1, 3, 4, requires_grad=True), torch.randn(6, 4)
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]])
    linear_token_log_probs(states, weight, None, ids, mask).sum().backward()
    assert weight.grad is None
    assert not states.grad[:, -1].any()
    assert states.grad[:, :-1].all()


def test_bad_states_are_refused():
    _, ids, mask = batch()
    with pytest.raises(ValueError, match="shapes"):
        linear_token_log_probs(torch.randn(2, 4, 3), torch.randn(4, 3), None, ids, mask)
