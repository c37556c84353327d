"""Attention on an instruction: which tokens it is, and the share that falls on them, by hand and by a whole forward pass."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from transformers import AutoTokenizer

from suite.check.exact_world import word_tokenizer
from suite.data.preference_data import Completion, Prompt
from suite.evaluation.instruction_attention import attention_on, tokens_of, with_attentions
from suite.study.profiles import ASSETS


def test_the_tokens_of_an_instruction_are_found_in_the_prompt():
    tokenizer = word_tokenizer(["<eos>", "be", "brief", "hello", "there"])
    prompt = Prompt("p", (3, 1, 2, 4, 1, 2), "hello be brief there be brief")
    assert tokens_of("be brief", prompt, tokenizer) == range(1, 3)  # the first time that it stands there
    begun = Prompt("p", (0, 3, 1, 2, 4), "hello be brief there")  # a token before every text
    assert tokens_of("be brief", begun, tokenizer) == range(2, 4)
    assert tokens_of("be long", prompt, tokenizer) is None


def test_a_token_that_the_instruction_shares_with_its_neighbour_is_one_of_its():
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
    text = "\n\nHuman: Say something nice.\n\nWhy?\n\nAssistant:"
    ids = tokenizer(text)["input_ids"]
    found = tokens_of("Say something nice.", Prompt("p", tuple(ids), text), tokenizer)
    assert tokenizer.decode(ids[found.start : found.stop]).strip() == "Say something nice."


class Model:
    """Gives out made-up attention of one answer of two tokens after a prompt of three."""

    def __init__(self, *layers):
        self.layers = layers

    def get_input_embeddings(self):
        return SimpleNamespace(weight=torch.zeros(1))

    def __call__(self, input_ids, past_key_values=None, output_attentions=False, **_):
        return SimpleNamespace(
            past_key_values="cache", attentions=self.layers if past_key_values and output_attentions else None
        )


ANSWER = Completion(Prompt("p", (1, 2, 3), "a b c"), (4, 0), "d", False)


def test_shares_are_means_over_heads_layers_and_the_answers_tokens():
    first = torch.tensor([[
        [[0.1, 0.2, 0.3, 0.4, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]],
        [[0.0, 0.5, 0.5, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1, 0.6]],
    ]])  # fmt: skip
    # on tokens 1 and 2: 0.5 and 0.4; 1.0 and 0.2
    second = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 0.0]] * 2] * 2])
    found = attention_on(range(1, 3), ANSWER, Model(first, second))
    assert found.mean == pytest.approx((0.525 + 0.0) / 2)
    assert found.largest_layer == pytest.approx(0.525)
    assert found.even == pytest.approx((2 / 4 + 2 / 5) / 2)


def test_layers_that_do_not_look_at_the_whole_text_do_not_count_and_without_any_nothing_is_known():
    whole = torch.full((1, 1, 2, 5), 0.2)
    found = attention_on(range(1, 3), ANSWER, Model(torch.ones(1, 1, 2, 4), None, whole))
    assert found.mean == pytest.approx(0.4)
    assert attention_on(range(1, 3), ANSWER, Model(None)) is None


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_it_is_that_of_a_whole_forward_pass_and_the_model_is_as_before(architecture):
    model = tiny_model(architecture).eval()
    answer = Completion(Prompt("p", (3, 1, 4, 2, 5), ""), (2, 2, 0), "", False)
    before = model.config._attn_implementation
    with with_attentions(model):
        found = attention_on(range(1, 4), answer, model)
        with torch.no_grad():
            whole = model(torch.tensor([[*answer.prompt.ids, *answer.ids]]), output_attentions=True).attentions
    assert model.config._attn_implementation == before
    layers = [layer[0, :, 5:, 1:4].sum(-1).mean() for layer in whole]
    assert found.mean == pytest.approx(float(sum(layers)) / 2, abs=1e-5)
    assert found.largest_layer == pytest.approx(float(max(layers)), abs=1e-5)
