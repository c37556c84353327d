from itertools import product

import numpy as np
import pytest
import torch
from conftest import EOS, completion, make_pairs, tiny_model

from suite.common.errors import UserError
from suite.data.preference_data import Prompt
from suite.evaluation.reward_kl import check_sampler, evaluate_reward_kl, kl_columns, sampler_kl
from suite.evaluation.self_test import check_step_0
from suite.policies.causal_lm import CausalLMPolicy


def count_good(prompts, completions):
    return [float(c.count("good")) for c in completions]


@pytest.fixture
def other(tokenizer):
    return CausalLMPolicy(tiny_model(seed=1), tokenizer)


def test_both_estimates_against_enumeration(gpt2, other):
    """KL over every completion of at most two tokens; the prompt's own tokens, where the models differ too, must not count."""
    prompt = Prompt("p", (3, 1, 2), "film good bad")
    every = [completion(prompt, EOS)] + [completion(prompt, a, b) for a, b in product(range(1, 6), range(6))]
    p, q = gpt2.log_prob(every).double(), other.log_prob(every).double()
    truth = float((p.exp() * (p - q)).sum())
    columns = kl_columns(gpt2, other, every)
    weights = p.exp().numpy()
    assert float(weights @ columns["kl_k1"]) == pytest.approx(truth, abs=1e-3)
    assert float(weights @ columns["kl_exact"]) == pytest.approx(truth, abs=1e-3)
    assert columns["reference_logps"] == pytest.approx(q.numpy(), abs=1e-4)
    assert truth > 0.1


def test_on_samples_both_agree_and_the_exact_one_is_never_negative(gpt2, other, prompts):
    frame = evaluate_reward_kl(gpt2, other, count_good, prompts, num_samples=200, max_new_tokens=5, seed=0)
    assert len(frame) == 600
    assert (frame["kl_exact"] >= 0).all()
    assert (frame["kl_k1"] < 0).any()
    error = (frame["kl_k1"] - frame["kl_exact"]).std() / np.sqrt(600)
    assert abs(frame["kl_k1"].mean() - frame["kl_exact"].mean()) < 4 * error
    assert frame["reward"].tolist() == count_good(None, frame["text"])
    assert frame["sampler_kl"].mean() < 1e-6


def test_a_policy_against_itself_is_0(gpt2, prompts):
    frame = evaluate_reward_kl(gpt2, gpt2.copy(), count_good, prompts, num_samples=4, max_new_tokens=5, seed=0)
    assert frame["kl_exact"].abs().max() < 1e-6
    assert frame["kl_k1"].abs().max() < 1e-6


def test_a_sampler_that_is_not_the_policy_is_found(gpt2, other, prompts):
    drawn = [c for some in gpt2.sample(prompts, num_samples=50, max_new_tokens=5, seed=0) for c in some]
    check_sampler(sampler_kl(gpt2, drawn))
    with pytest.raises(UserError, match=r"KL\(sampler‖scorer\)"):
        check_sampler(sampler_kl(other, drawn))
    with pytest.raises(UserError, match="sampler"):
        check_sampler(float("nan"))


def test_self_test_passes_for_a_copy_and_fails_for_dropout_or_another_model(gpt2, other, prompts):
    pairs = make_pairs(gpt2, prompts, 3)
    check_step_0(gpt2.copy(), gpt2, pairs, stored_in="float32")
    with pytest.raises(UserError, match="not a copy of the reference"):
        check_step_0(other, gpt2, pairs, stored_in="float32")
    with pytest.raises(UserError, match="made for another reference"):
        check_step_0(other.copy(), other, pairs, stored_in="bfloat16")
    with_dropout = gpt2.copy()
    for module in with_dropout.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    with_dropout.model.train()
    with pytest.raises(UserError, match="dropout"):
        check_step_0(with_dropout, gpt2, pairs, stored_in="float32")


def test_self_test_finds_lower_precision(gpt2, prompts):
    pairs = make_pairs(gpt2, prompts, 3)
    low = gpt2.copy()
    low.model.to(torch.bfloat16)
    with pytest.raises(UserError, match="precision"):
        check_step_0(low, gpt2, pairs, stored_in="float32")
