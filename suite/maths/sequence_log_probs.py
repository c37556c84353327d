"""Logits, or what the output layer reads → log-probabilities of the tokens that followed. The one place where they are made."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

ROWS_AT_ONCE, LOGITS_AT_ONCE = 128, 2**22


def token_log_probs(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log π(y_t|x, y_<t) in nats at every completion token, 0 elsewhere. Shape (batch, length - 1), float32 (of float64: that).

    The logits at position t - 1 predict the token at t, so position 0 is never scored, and entry t belongs to token t + 1.

    Args:
        logits: Raw model outputs at temperature 1. Shape (batch, length, vocabulary).
        input_ids: Prompt and completion tokens. Shape (batch, length).
        completion_mask: True on completion tokens. Shape (batch, length), bool.

    Raises:
        ValueError: Shapes disagree, a row has no completion token, or its first token is marked as completion.
    """
    mask = _predicted(logits, input_ids, completion_mask)
    scored = logits[:, :-1][mask].to(_exact(logits))  # (completion tokens, vocabulary): the prompt's are never normalised
    chosen = -functional.cross_entropy(scored, input_ids[:, 1:][mask], reduction="none")
    return torch.zeros(mask.shape, dtype=chosen.dtype, device=logits.device).masked_scatter(mask, chosen)


def linear_token_log_probs(
    states: Tensor, weight: Tensor, bias: Tensor | None, input_ids: Tensor, completion_mask: Tensor
) -> Tensor:
    """As `token_log_probs` of logits = states @ weightᵀ + bias, which are made at completion tokens only.

    Forward and backward keep one array of (completion tokens, vocabulary) in the arithmetic of the matrix product, not several
    in float32. First derivatives only.

    Args:
        states: What the output layer reads. Shape (batch, length, hidden size).
        weight: Of the output layer. Shape (vocabulary, hidden size).
        bias: Of the output layer, shape (vocabulary,), or None.
        input_ids: As in `token_log_probs`, like `completion_mask`, the result and the errors.
    """
    mask = _predicted(states, input_ids, completion_mask)
    device = states.device.type
    rows, tokens = states[:, :-1][mask], input_ids[:, 1:][mask]
    if torch.is_autocast_enabled(device):
        lower = torch.get_autocast_dtype(device)
        rows, weight, bias = rows.to(lower), weight.to(lower), None if bias is None else bias.to(lower)
    if torch.is_grad_enabled():
        chosen = _LinearLogProbs.apply(rows, weight, bias, tokens)
    else:  # nothing is kept: as many logits at a time as stay in the processor's cache
        size = max(ROWS_AT_ONCE, LOGITS_AT_ONCE // len(weight))
        parts = []
        for part, some in zip(rows.split(size), tokens.split(size), strict=True):
            logits = functional.linear(part, weight, bias).to(_exact(states))
            parts.append(logits.gather(1, some[:, None]).squeeze(1) - logits.logsumexp(-1))
        chosen = torch.cat(parts)
    return torch.zeros(mask.shape, dtype=chosen.dtype, device=states.device).masked_scatter(mask, chosen)


class _LinearLogProbs(torch.autograd.Function):
    """log softmax(states @ weightᵀ + bias) at one token a row; the gradient of the logits is onehot(token) - softmax."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
        logits = functional.linear(states, weight, bias)
        log_sums = torch.empty(len(logits), dtype=_exact(logits), device=logits.device)
        scratch = _scratch(logits)
        for rows, of_rows in _blocks(logits, log_sums):
            exact = scratch[: len(rows)].copy_(rows)
            largest = exact.amax(-1, keepdim=True)
            of_rows.copy_(exact.sub_(largest).exp_().sum(-1).log_().add_(largest.squeeze(-1)))
        ctx.save_for_backward(states, weight, tokens, logits, log_sums)
        return logits.gather(1, tokens[:, None]).squeeze(1).to(log_sums.dtype) - log_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        states, weight, tokens, logits, log_sums = ctx.saved_tensors
        of_logits = torch.empty_like(logits)
        scratch = _scratch(logits)
        for rows, log_sum, token, weights, of_rows in _blocks(logits, log_sums, tokens, grad, of_logits):
            softmax = scratch[: len(rows)].copy_(rows).sub_(log_sum[:, None]).exp_()
            of_rows.copy_(softmax.mul_(-weights[:, None]).scatter_add_(1, token[:, None], weights[:, None]))
        needs_states, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            of_logits @ weight if needs_states else None,
            of_logits.t() @ states if needs_weight else None,
            of_logits.sum(0) if needs_bias else None,
            None,
        )


def _scratch(logits: Tensor) -> Tensor:
    """Room for one block, used again for every block: new memory costs more than the arithmetic."""
    return torch.empty(min(ROWS_AT_ONCE, len(logits)), logits.shape[1], dtype=_exact(logits), device=logits.device)


def _exact(values: Tensor) -> torch.dtype:
    """In which probabilities are summed: float32, or float64 where the model is in it."""
    return torch.promote_types(values.dtype, torch.float32)


def _blocks(*arrays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(array.split(ROWS_AT_ONCE) for array in arrays), strict=True)


def _predicted(outputs: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """The mask by the positions that predict: entry t belongs to token t + 1."""
    if outputs.shape[:2] != input_ids.shape or completion_mask.shape != input_ids.shape:
        raise ValueError(
            f"shapes disagree: logits or states {tuple(outputs.shape)}, input_ids {tuple(input_ids.shape)}, "
            f"completion_mask {tuple(completion_mask.shape)}"
        )
    if completion_mask[:, 0].any() or not completion_mask.any(dim=1).all():
        raise ValueError("completion_mask: every row needs at least one completion token, after at least one prompt token")
    return completion_mask[:, 1:]
