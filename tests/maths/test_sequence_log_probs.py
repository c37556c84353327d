import pytest
import torch

from suite.maths.sequence_log_probs import sequence_log_probs, token_log_probs


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
    assert torch.allclose(sequence_log_probs(logits, ids, mask), expected.sum(-1), atol=1e-6)


def test_gradient_flows_only_from_the_scored_positions():
    logits, ids, mask = batch()
    logits.requires_grad_()
    sequence_log_probs(logits, ids, mask).sum().backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert torch.equal(touched[:, :-1], mask[:, 1:])
    assert not touched[:, -1].any()


def test_bad_masks_are_refused():
    logits, ids, mask = batch()
    for bad in (torch.zeros_like(mask), mask | torch.tensor([1, 0, 0, 0, 0]).bool()):
        with pytest.raises(ValueError, match="completion_mask"):
            sequence_log_probs(logits, ids, bad)
    with pytest.raises(ValueError, match="shapes"):
        sequence_log_probs(logits, ids[:, :-1], mask)
