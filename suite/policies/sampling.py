"""The batched sampler: the one way to draw completions from a causal language model."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from suite.data.batching import different, length_batches
from suite.data.preference_data import Completion, Prompt
from suite.policies.model_config import cached_numbers, context_of
from suite.policies.surgery import packed

ROWS_PER_BATCH = 512
TOKENS_PER_BATCH = 20_480
"""Of prompt and completion together: long prompts are drawn in smaller batches, with less padding. On a GPU four times that."""
CACHE_PER_BATCH = 16 * 2**30
"""Bytes of keys and values, in float32: large models draw in smaller batches."""
KEPT_SHARE = 0.75
"""Finished rows leave the batch when no more than this share of it goes on: to select rows copies the cache."""
BLOCK = 64
"""Tokens whose probabilities are summed together when one is drawn; any number gives the same tokens."""


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
    end_ids: Sequence[int], decode: Callable[[Sequence[int]], str], on_batch: Callable[[int], Any] | None = None,
) -> list[list[Completion]]:  # fmt: skip
    """Draw completions by inverting each next-token distribution's cumulative sum at a given uniform number.

    Args:
        model: A Hugging Face causal language model; prompts are padded on the left with explicit position ids.
        prompts: Non-empty prompts.
        num_samples: Completions per prompt.
        max_new_tokens: Length limit in tokens, EOS included; a completion that reaches it without an end is `truncated`.
        temperature: 1 samples the model's own distribution; 0 takes the most likely token. No top-k or top-p.
        seed: See `uniforms`.
        end_ids: The tokens that end a completion, EOS first.
        decode: Of the tokenizer.
        on_batch: Called with the number of completions just finished.

    Raises:
        ValueError: A length is out of range (the model's context is named) or a prompt is empty.
    """
    check_lengths(model, prompts, num_samples, max_new_tokens, temperature)
    rows = [(i, k) for i in range(len(prompts)) for k in range(num_samples)]
    noise = [uniforms(p, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed) for p in prompts]
    completions: list[list[Completion]] = [[None] * num_samples for _ in prompts]  # type: ignore[list-item]
    most = partial(rows_per_batch, cached_numbers(model.config), on_gpu=model.get_input_embeddings().weight.is_cuda)
    lengths = [len(prompts[i].ids) + max_new_tokens for i, _ in rows]
    with packed(model):
        for index in length_batches(lengths, most):
            batch = [rows[place] for place in index]
            batch_noise = torch.from_numpy(np.stack([noise[i][k] for i, k in batch]))
            drawn, log_probs = _decode_batch(model, [prompts[i].ids for i, _ in batch], batch_noise, temperature, end_ids)
            for (i, k), ids, values in zip(batch, drawn.tolist(), log_probs, strict=True):
                length = next((place for place, token in enumerate(ids, 1) if token in end_ids), len(ids))
                truncated = ids[length - 1] not in end_ids
                text = decode(ids[:length] if truncated else ids[: length - 1])
                completions[i][k] = Completion(prompts[i], tuple(ids[:length]), text, truncated, float(values[:length].sum()))
            if on_batch:
                on_batch(len(batch))
    return completions


def rows_per_batch(cached: int | None, longest: int, *, on_gpu: bool) -> int:
    """How many completions are drawn at a time, the longest of so many tokens, by a model of which a token leaves `cached`
    numbers in its cache.
    """
    tokens = TOKENS_PER_BATCH * (4 if on_gpu else 1)
    if cached:
        tokens = min(tokens, CACHE_PER_BATCH // (4 * cached))
    return max(1, min(ROWS_PER_BATCH, tokens // longest))


def check_lengths(model, prompts: Sequence[Prompt], num_samples: int, max_new_tokens: int, temperature: float) -> None:
    """Raise the ValueErrors of `sample_completions`."""
    if num_samples < 1 or max_new_tokens < 1 or temperature < 0:
        raise ValueError(
            f"expected num_samples ≥ 1, max_new_tokens ≥ 1 and temperature ≥ 0, got {num_samples}, {max_new_tokens} "
            f"and {temperature}"
        )
    context = context_of(model.config)
    for prompt in prompts:
        if not prompt.ids:
            raise ValueError(f"prompt {prompt.id!r} is empty")
        if context and len(prompt.ids) + max_new_tokens > context:
            raise ValueError(
                f"prompt {prompt.id!r}: {len(prompt.ids)} tokens + max_new_tokens {max_new_tokens} exceed the model's "
                f"context of {context}; shorten one of them"
            )


def _decode_batch(
    model, prompts: Sequence[Sequence[int]], noise: Tensor, temperature: float, end_ids: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """One batch; returns tokens (batch, time), filled with EOS after the end, and their log-probs at `temperature`, float32.

    A prompt that stands in several rows is read once. Rows that are finished leave the batch as soon as they are many.
    """
    device = model.get_input_embeddings().weight.device
    noise = noise.to(device)
    width, steps = max(map(len, prompts)), noise.shape[1]
    first, which = different(list(map(tuple, prompts)))
    mask = torch.ones(len(first), width + steps, dtype=torch.long)
    ids = torch.zeros(len(first), width, dtype=torch.long)
    for row, prompt in enumerate(prompts[i] for i in first):
        mask[row, : width - len(prompt)] = 0
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    padded = not bool(mask.all())
    mask, ids = mask.to(device), ids.to(device)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)

    def forward(ids: Tensor, end: int, **more: Any) -> Any:
        """The model's output; where nothing is padded, it makes neither mask nor positions of ours."""
        if padded:
            more |= {"attention_mask": mask[:, :end], "position_ids": positions[:, end - ids.shape[1] : end]}
        return model(input_ids=ids, use_cache=True, logits_to_keep=1, **more)

    output = forward(ids, width)
    rows = torch.arange(len(prompts), device=device)[which] if isinstance(which, slice) else torch.tensor(which, device=device)
    logits, cache = output.logits[rows, -1], output.past_key_values
    mask, positions = mask[rows], positions[rows]
    _make_room(cache, rows, width + steps)
    tokens = torch.full((len(prompts), steps), end_ids[0], device=device)
    ends = torch.tensor(end_ids, device=device)
    log_probs = torch.zeros(len(prompts), steps, device=device)
    places = torch.arange(len(prompts), device=device)  # of the batch's rows in the two
    open_rows = torch.ones_like(places, dtype=torch.bool)
    for step in range(steps):
        token, log_prob = _draw(logits.float(), noise[:, step], temperature)
        tokens[places, step] = token = torch.where(open_rows, token, end_ids[0])
        log_probs[places, step] = torch.where(open_rows, log_prob, 0.0)
        open_rows &= ~torch.isin(token, ends)
        left = int(open_rows.sum())
        if not left or step == steps - 1:
            break
        if left <= KEPT_SHARE * len(places):
            rows = open_rows.nonzero().squeeze(1)
            cache.batch_select_indices(rows)
            places, token, noise, open_rows = places[rows], token[rows], noise[rows], open_rows[rows]
            mask, positions = mask[rows], positions[rows]
        logits = forward(token[:, None], width + step + 1, past_key_values=cache).logits[:, -1]
    return tokens.cpu(), log_probs.cpu()


class _Room(DynamicLayer):
    """Keys and values of one layer in arrays of their final length, so that a new token is written into them; `DynamicLayer`
    copies them for every token.
    """

    def __init__(self, layer: Any, rows: Tensor, length: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._arrays = [torch.empty(len(rows), *t.shape[1:2], length, *t.shape[3:], dtype=t.dtype, device=t.device)
                        for t in (layer.keys, layer.values)]  # fmt: skip
        self.update(layer.keys[rows], layer.values[rows])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for array, new in zip(self._arrays, (key_states, value_states), strict=True):
            array[:, :, start:end] = new
        self.keys, self.values = (array[:, :, :end] for array in self._arrays)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        end = self.get_seq_length()
        self._arrays = [array[indices] for array in self._arrays]
        self.keys, self.values = (array[:, :, :end] for array in self._arrays)


def _make_room(cache: Any, rows: Tensor, length: int) -> None:
    """Repeat what the prompts left in the cache for all `rows`, with room for `length` tokens where a layer keeps them all."""
    for k, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[k] = _Room(layer, rows, length)
        else:
            layer.batch_select_indices(rows)


def _draw(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token at which the cumulative probability passes `noise`, and its log-probability. Shapes (batch,).

    Found in two levels, first the block of `BLOCK` tokens, then the token in it: sums over the vocabulary are made once.
    """
    if temperature == 0:
        return logits.argmax(-1), torch.zeros_like(noise, dtype=torch.float32)
    scores = logits if temperature == 1 else logits / temperature
    largest = scores.amax(-1, keepdim=True)
    p = (scores - largest).exp_()
    if rest := scores.shape[-1] % BLOCK:
        p = torch.nn.functional.pad(p, (0, BLOCK - rest))
    blocks = p.view(len(p), -1, BLOCK)
    sums = blocks.sum(-1)
    up_to = sums.cumsum(-1)
    total = up_to[:, -1:]
    block, before = _passes(up_to, noise.float()[:, None] * total)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).cumsum(-1)
    place, _ = _passes(inside, before)
    token = block * BLOCK + place
    return token.squeeze(-1), (scores.gather(-1, token) - largest - total.log()).squeeze(-1)


def _passes(up_to: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where a cumulative sum passes `target`, and how far beyond the entry before that is. Shapes (batch, 1).

    A target that rounding put at the end or beyond is taken as just before the end: what is found has a probability above 0.
    """
    target = torch.minimum(target, up_to[:, -1:] * (1 - 1e-6))
    found = torch.searchsorted(up_to, target, right=True)
    return found, target - torch.where(found > 0, up_to.gather(-1, (found - 1).clamp_min(0)), 0.0)
