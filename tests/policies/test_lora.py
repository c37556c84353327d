"""Adapters: they begin as nothing, they alone learn, and what is saved is what was trained."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS
from suite.tasks.imdb_sentiment import prompts_from_model


@pytest.fixture(scope="module")
def reference():
    return CausalLMPolicy.load(ASSETS / "imdb-gpt2", lora_rank=4)


@pytest.fixture(scope="module")
def completions(reference):
    prompts = prompts_from_model(reference, "train", 6, seed=0)
    return [some[0] for some in reference.sample(prompts, num_samples=1, max_new_tokens=8, seed=0)]


def trained(reference, completions):
    policy = reference.copy()
    optimizer = torch.optim.RMSprop(policy.model.parameters(), lr=1e-3)
    for _ in range(3):
        (-policy.completion_log_probs(completions).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy


def test_a_copy_is_the_reference_and_few_weights_can_change(reference, completions):
    policy = reference.copy()
    assert torch.allclose(policy.log_prob(completions), reference.log_prob(completions), atol=1e-4)
    learn = [name for name, weight in policy.model.named_parameters() if weight.requires_grad]
    assert learn
    assert all("lora_" in name for name in learn)


def test_training_changes_the_adapters_alone(reference, completions):
    before = copy.deepcopy(reference.model.state_dict())
    policy = trained(reference, completions)
    assert (policy.log_prob(completions) > reference.log_prob(completions) + 1).all()
    after = {name.replace(".base_layer", ""): value for name, value in policy.model.state_dict().items()}
    for name, value in before.items():
        assert torch.equal(after[name], value), name
        assert torch.equal(reference.model.state_dict()[name], value), name


def test_the_same_adapters_every_time(reference, completions):
    torch.manual_seed(1)
    first = trained(reference, completions)
    torch.manual_seed(2)
    assert torch.equal(first.log_prob(completions), trained(reference, completions).log_prob(completions))


def test_saved_as_adapters_and_loaded_as_a_plain_model(reference, completions, tmp_path):
    policy = trained(reference, completions)
    policy.save(tmp_path / "p")
    size = sum(path.stat().st_size for path in (tmp_path / "p").glob("*.safetensors"))
    assert size < 0.1 * sum(path.stat().st_size for path in (ASSETS / "imdb-gpt2").glob("*.safetensors"))
    loaded = CausalLMPolicy.load(tmp_path / "p")
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]
    assert torch.allclose(loaded.log_prob(completions), policy.log_prob(completions), atol=1e-3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "p", dtype=torch.float32)
    again = CausalLMPolicy(plain, reference.tokenizer)
    assert torch.allclose(again.log_prob(completions), policy.log_prob(completions), atol=1e-3)
