"""The batched sampler: the one way to draw completions from a causal language model."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.data.batching import length_batches
from suite.data.preference_data import Completion, Prompt

ROWS_PER_BATCH = 256
TOKENS_PER_BATCH = 12_288
"""Of prompt and completion together: long prompts are drawn in smaller batches, with less padding."""


def uniforms(prompt: Prompt, *, num_samples: int, max_new_tokens: int, seed: int) -> np.ndarray:
    """The random numbers that decide a prompt's completions. Shape (num_samples, max_new_tokens), in [0, 1).

    They depend on the seed and the prompt alone, not on the batch or the policy: completions do not change with the batch
    size (beyond rounding), asking for more samples keeps the first ones, and two policies compared on one prompt share
    their random numbers, which narrows paired differences.
    """
    digest = hashlib.sha256(prompt.id.encode()).digest()[:8]
    generator = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    return generator.random((num_samples, max_new_tokens))


@torch.inference_mode()
def sample_completions(
    model: Any, prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, temperature: float, seed: int,
    eos_token_id: int, decode: Callable[[Sequence[int]], str], on_batch: Callable[[int], Any] | None = None,
) -> list[list[Completion]]:  # fmt: skip
    """Draw completions by inverting each next-token distribution's cumulative sum at a given uniform number.

    Args:
        model: A Hugging Face causal language model; prompts are padded on the left with explicit position ids.
        prompts: Non-empty prompts.
        num_samples: Completions per prompt.
        max_new_tokens: Length limit in tokens, EOS included; a completion that reaches it without EOS is `truncated`.
        temperature: 1 samples the model's own distribution; 0 takes the most likely token. No top-k or top-p.
        seed: See `uniforms`.
        eos_token_id, decode: Of the tokenizer.
        on_batch: Called with the number of completions just finished.

    Raises:
        ValueError: A length is out of range (the model's context is named) or a prompt is empty.
    """
    _check_lengths(model, prompts, num_samples, max_new_tokens, temperature)
    rows = [(i, k) for i in range(len(prompts)) for k in range(num_samples)]
    noise = [uniforms(p, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed) for p in prompts]
    completions: list[list[Completion]] = [[None] * num_samples for _ in prompts]  # type: ignore[list-item]
    tokens = TOKENS_PER_BATCH * (4 if model.get_input_embeddings().weight.is_cuda else 1)
    lengths = [len(prompts[i].ids) + max_new_tokens for i, _ in rows]
    for index in length_batches(lengths, lambda longest: min(ROWS_PER_BATCH, tokens // longest)):
        batch = [rows[place] for place in index]
        batch_noise = torch.from_numpy(np.stack([noise[i][k] for i, k in batch]))
        drawn, log_probs = _decode_batch(model, [prompts[i].ids for i, _ in batch], batch_noise, temperature, eos_token_id)
        for (i, k), ids, values in zip(batch, drawn.tolist(), log_probs, strict=True):
            truncated = eos_token_id not in ids
            length = len(ids) if truncated else ids.index(eos_token_id) + 1
            text = decode(ids[:length] if truncated else ids[: length - 1])
            completions[i][k] = Completion(prompts[i], tuple(ids[:length]), text, truncated, float(values[:length].sum()))
        if on_batch:
            on_batch(len(batch))
    return completions


def _check_lengths(model, prompts: Sequence[Prompt], num_samples: int, max_new_tokens: int, temperature: float) -> None:
    if num_samples < 1 or max_new_tokens < 1 or temperature < 0:
        raise ValueError(
            f"expected num_samples ≥ 1, max_new_tokens ≥ 1 and temperature ≥ 0, got {num_samples}, {max_new_tokens} "
            f"and {temperature}"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    for prompt in prompts:
        if not prompt.ids:
            raise ValueError(f"prompt {prompt.id!r} is empty")
        if context and len(prompt.ids) + max_new_tokens > context:
            raise ValueError(
                f"prompt {prompt.id!r}: {len(prompt.ids)} tokens + max_new_tokens {max_new_tokens} exceed the model's "
                f"context of {context}; shorten one of them"
            )


def _decode_batch(
    model, prompts: Sequence[Sequence[int]], noise: Tensor, temperature: float, eos_token_id: int
) -> tuple[Tensor, Tensor]:
    """One batch; returns tokens (batch, time), EOS-filled after the end, and their log-probs at `temperature`, float32.

    A prompt that stands in several rows is read once.
    """
    device = model.get_input_embeddings().weight.device
    noise = noise.to(device)
    width, steps = max(map(len, prompts)), noise.shape[1]
    different = {prompt: k for k, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    mask = torch.zeros(len(different), width + steps, dtype=torch.long)
    ids = torch.zeros(len(different), width, dtype=torch.long)
    for prompt, row in different.items():
        mask[row, width - len(prompt) :] = 1
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    mask, ids = mask.to(device), ids.to(device)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    output = model(
        input_ids=ids, attention_mask=mask[:, :width], position_ids=positions[:, :width], use_cache=True, logits_to_keep=1
    )
    logits, cache = output.logits[:, -1], output.past_key_values
    if len(different) < len(prompts):
        rows = torch.tensor([different[tuple(prompt)] for prompt in prompts], device=device)
        logits, mask, positions = logits[rows], mask[rows], positions[rows]
        cache.batch_select_indices(rows)
    tokens = torch.full((len(prompts), steps), eos_token_id, device=device)
    log_probs = torch.zeros(len(prompts), steps, device=device)
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for step in range(steps):
        token, log_prob = _draw(logits.float(), noise[:, step], temperature)
        tokens[:, step] = torch.where(open_rows, token, eos_token_id)
        log_probs[:, step] = torch.where(open_rows, log_prob, 0.0)
        open_rows &= token != eos_token_id
        if not open_rows.any() or step == steps - 1:
            break
        end = width + step + 1
        output = model(
            input_ids=tokens[:, step, None], attention_mask=mask[:, :end], position_ids=positions[:, end - 1 : end],
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits, cache = output.logits[:, -1], output.past_key_values
    return tokens.cpu(), log_probs.cpu()


def _draw(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token at which the cumulative probability passes `noise`, and its log-probability. Shapes (batch,)."""
    if temperature == 0:
        return logits.argmax(-1), torch.zeros_like(noise, dtype=torch.float32)
    p = (logits if temperature == 1 else logits / temperature).softmax(-1)
    cumulative = p.cumsum(-1)
    token = torch.searchsorted(cumulative, (noise.float() * cumulative[:, -1])[:, None], right=True)
    token = token.clamp_max(logits.shape[-1] - 1)
    return token.squeeze(-1), p.gather(-1, token).log().squeeze(-1)
