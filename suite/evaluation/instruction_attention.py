"""How much of a model's attention falls on an instruction while it answers (fig. 10 of Touvron et al. 2023)."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from suite.data.preference_data import Completion, Prompt


class Attention(NamedTuple):
    """Shares of the attention of an answer's tokens that fall on given tokens, from 0 to 1."""

    mean: float  # over heads, layers and the answer's tokens
    largest_layer: float  # the largest of the layers' means
    even: float  # what it would be if every token were looked at alike


@contextlib.contextmanager
def with_attentions(model: Any) -> Iterator[None]:
    """While a model computes attention in the way that can give it out."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def tokens_of(text: str, prompt: Prompt, tokenizer: Any) -> range | None:
    """Which of a prompt's tokens spell the first occurrence of a text, those included that it shares with what stands beside
    it. None where it is not found, or the tokenizer does not say which signs a token stands for.
    """
    start = prompt.text.find(text)
    if start < 0 or not text or not tokenizer.is_fast:
        return None
    found = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    first = len(prompt.ids) - len(found["input_ids"])  # a token that begins every text
    inside = [k for k, (begin, end) in enumerate(found["offset_mapping"]) if begin < start + len(text) and end > start]
    return range(first + inside[0], first + inside[-1] + 1) if inside else None


@torch.inference_mode()
def attention_on(tokens: range, completion: Completion, model: Any) -> Attention | None:
    """The attention of a completion's tokens, the last one's that ends it included, to some of its prompt's.

    The prompt is read first, so that no more than the completion's rows of the attention are kept. Layers that do not look at
    the whole text do not count. None where no layer gives its attention out: call it inside `with_attentions`.
    """
    device = model.get_input_embeddings().weight.device
    prompt, answer = (torch.tensor([ids], device=device) for ids in (completion.prompt.ids, completion.ids))
    past = model(input_ids=prompt, use_cache=True).past_key_values
    attentions = model(input_ids=answer, past_key_values=past, use_cache=True, output_attentions=True).attentions or ()
    whole = [layer[0].float() for layer in attentions if layer is not None and layer.shape[-1] == completion.length]
    if not whole:
        return None
    layers = torch.stack([layer[:, :, tokens.start : tokens.stop].sum(-1).mean() for layer in whole])
    seen = torch.arange(len(completion.prompt.ids), completion.length) + 1.0
    return Attention(float(layers.mean()), float(layers.max()), float((len(tokens) / seen).mean()))
