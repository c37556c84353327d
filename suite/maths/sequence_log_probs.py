"""Logits → log-probabilities of the tokens that followed. The one place where they are summed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def token_log_probs(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log π(y_t|x, y_<t) at every completion token, 0 elsewhere.

    The logits at position t - 1 predict the token at t, so position 0 is never scored.

    Args:
        logits: Raw model outputs at temperature 1. Shape (batch, length, vocabulary).
        input_ids: Prompt and completion tokens. Shape (batch, length).
        completion_mask: True on completion tokens. Shape (batch, length), bool.

    Returns:
        Nats, float32, shape (batch, length - 1); entry t belongs to token t + 1.

    Raises:
        ValueError: Shapes disagree, a row has no completion token, or its first token is marked as completion.
    """
    if logits.shape[:2] != input_ids.shape or completion_mask.shape != input_ids.shape:
        raise ValueError(
            f"shapes disagree: logits {tuple(logits.shape)}, input_ids {tuple(input_ids.shape)}, "
            f"completion_mask {tuple(completion_mask.shape)}"
        )
    if completion_mask[:, 0].any() or not completion_mask.any(dim=1).all():
        raise ValueError("completion_mask: every row needs at least one completion token, after at least one prompt token")
    mask = completion_mask[:, 1:]
    scored = logits[:, :-1][mask].float()  # (completion tokens, vocabulary): the prompt's logits are never normalised
    chosen = -functional.cross_entropy(scored, input_ids[:, 1:][mask], reduction="none")
    return torch.zeros(mask.shape, dtype=torch.float32, device=logits.device).masked_scatter(mask, chosen)


def sequence_log_probs(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log π(y|x) = Σ_t log π(y_t|x, y_<t) in nats, summed over completion tokens. Shape (batch,), float32.

    Arguments and errors as in `token_log_probs`.
    """
    return token_log_probs(logits, input_ids, completion_mask).sum(-1)
