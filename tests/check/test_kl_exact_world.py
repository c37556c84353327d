"""Every KL estimator against enumeration, through the models and functions that training and evaluation use."""

import copy
import math

import numpy as np
import pytest
import torch

from suite.check.exact_world import (
    MAX_NEW_TOKENS,
    ExactWorld,
    TableReward,
    exact_kl,
    tiny_language_model,
    word_tokenizer,
)
from suite.evaluation.reward_kl import evaluate_reward_kl, kl_columns
from suite.maths.kl import kl_terms, sequence_kl
from suite.policies.causal_lm import CausalLMPolicy

WORLD = ExactWorld()
EVERY = [c for some in WORLD.completions for c in some]


def policy(seed):
    return CausalLMPolicy(tiny_language_model(seed), word_tokenizer())


def table(p):
    with torch.no_grad():
        return WORLD.log_probs(p.model).double().log_softmax(-1)


def values(p, q, estimator):
    """The estimator's value for every completion, shape (prompts, 156)."""
    with torch.no_grad():
        (of_p, mask), (of_q, _) = p.completion_token_log_probs(EVERY), q.completion_token_log_probs(EVERY)
        if estimator == "exact":
            of_p, of_q = p.next_token_log_probs(EVERY), q.next_token_log_probs(EVERY)
        if estimator == "k3 of sums":
            return kl_terms(of_p.double().sum(-1), of_q.double().sum(-1), estimator="k3").view(2, -1)
        return sequence_kl(of_p.double(), of_q.double(), mask, estimator=estimator).view(2, -1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_expectations_by_enumeration(seed):
    p, q = policy(seed), policy(0)
    truth, weights = exact_kl(table(p), table(q)), table(p).exp()
    for estimator in ("k1", "k3", "exact", "k3 of sums"):
        assert torch.allclose((weights * values(p, q, estimator)).sum(-1), truth, atol=1e-5), estimator
    for estimator in ("k3", "exact", "k3 of sums", "k2"):
        assert (values(p, q, estimator) >= -1e-6).all()
    assert (values(p, q, "k1") < -0.1).any()
    assert ((weights * values(p, q, "k2")).sum(-1) - truth).abs().min() > 0.05  # biased


def test_a_thousand_replications():
    """Means of 64 samples, 1,000 times: the unbiased ones miss by no more than chance, k2 by far more."""
    p, q = policy(1), policy(0)
    truth = float(exact_kl(table(p), table(q))[0])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(table(p)[0].exp(), 64_000, replacement=True, generator=generator).view(1000, 64)
    for estimator in ("k1", "k2", "k3", "exact"):
        means = values(p, q, estimator)[0][drawn].mean(1)
        misses = abs(float(means.mean()) - truth) / (float(means.std()) / math.sqrt(1000))
        assert (misses > 20) if estimator == "k2" else (misses < 4), estimator


def test_exact_per_step_is_not_always_the_one_of_least_variance():
    """Two branches whose first step's log-ratio and second step's KL cancel: k1 is constant, the per-step sum is not.

    The reference always chooses between two tokens with ½ each. The policy takes A with ⅓ (log-ratio log ⅔) and then always
    the same token (log-ratio log 2, which is also that step's KL), or B with ⅔ (log-ratio log 4/3) and then agrees with the
    reference.
    k1 is log ⅔ + log 2 = log 4/3 after A and log 4/3 + 0 after B.
    """
    half = math.log(0.5)
    policy_steps = torch.tensor([[[1 / 3, 2 / 3], [1.0, 0.0]], [[1 / 3, 2 / 3], [0.5, 0.5]]], dtype=torch.float64).log()
    reference_steps = torch.full((2, 2, 2), half, dtype=torch.float64)
    mask = torch.ones(2, 2, dtype=torch.bool)
    tokens = torch.tensor([[0, 0], [1, 0]])  # A then its only token; B then either (both alike)
    of_p, of_q = (steps.gather(-1, tokens[..., None]).squeeze(-1) for steps in (policy_steps, reference_steps))
    k1 = sequence_kl(of_p, of_q, mask, estimator="k1")
    exact = sequence_kl(policy_steps, reference_steps, mask, estimator="exact")
    weights = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    assert (weights * k1).sum().item() == pytest.approx((weights * exact).sum().item())  # same expectation
    assert k1[0].item() == pytest.approx(math.log(4 / 3)) == k1[1].item()  # and no variance at all
    assert abs(exact[0] - exact[1]).item() == pytest.approx(math.log(2))


def test_evaluation_reports_these_numbers():
    p, q = policy(1), policy(0)
    reward = TableReward.of(WORLD, WORLD.random_rewards(0))
    frame = evaluate_reward_kl(p, q, reward, WORLD.prompts, num_samples=1500, max_new_tokens=MAX_NEW_TOKENS, seed=0)
    truth = exact_kl(table(p), table(q))
    for prompt, expected in zip(WORLD.prompts, truth.tolist(), strict=True):
        rows = frame[frame["prompt_id"] == prompt.id]
        for column in ("kl_k1", "kl_exact"):
            assert rows[column].mean() == pytest.approx(expected, abs=5 * rows[column].std() / math.sqrt(len(rows)))
    columns = kl_columns(p, q, EVERY)
    for estimator in ("k1", "exact"):
        assert np.allclose(columns[f"kl_{estimator}"], values(p, q, estimator).flatten(), atol=1e-5)


def test_another_temperature_is_refused_and_then_measured_exactly():
    """At temperature ½ the samples are of another distribution: KL(π_½‖π_ref) on request, by enumeration too."""
    p, q = policy(1), policy(0)
    reward = TableReward.of(WORLD, WORLD.random_rewards(0))
    keywords = {"num_samples": 1500, "max_new_tokens": MAX_NEW_TOKENS, "seed": 0, "temperature": 0.5}
    with pytest.raises(ValueError, match="not samples of π"):
        evaluate_reward_kl(p, q, reward, WORLD.prompts, **keywords)
    frame = evaluate_reward_kl(p, q, reward, WORLD.prompts, **keywords, kl_of="sampler")
    sharp = copy.deepcopy(p)
    with torch.no_grad():
        sharp.model.lm_head.weight.mul_(2)  # logits/½
    truth = exact_kl(table(sharp), table(q))
    assert abs(truth - exact_kl(table(p), table(q))).min() > 0.2
    for prompt, expected in zip(WORLD.prompts, truth.tolist(), strict=True):
        rows = frame[frame["prompt_id"] == prompt.id]
        for column in ("kl_k1", "kl_exact"):
            assert rows[column].mean() == pytest.approx(expected, abs=5 * rows[column].std() / math.sqrt(len(rows)))
    assert abs(frame["sampler_kl"]).max() < 1e-3
