"""Sections 4, 5 and appendix A of Rafailov et al. 2023 (arXiv:2305.18290), held against enumeration."""

import copy
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.check.exact_world import (
    ExactWorld,
    exact_kl,
    fit_exactly,
    mean_dpo_loss,
    optimum,
    sample_wins,
    tiny_language_model,
    win_probabilities,
)
from suite.maths.losses import dpo_loss, plackett_luce_dpo_loss

WORLD = ExactWorld()
MODEL = tiny_language_model()
with torch.no_grad():
    REFERENCE = WORLD.log_probs(MODEL)
    EXACT_REFERENCE = REFERENCE.double().log_softmax(-1)


def distance(log_probs, best):
    return float(exact_kl(log_probs.double(), best.double()).max())


def fit(loss, **settings):
    return fit_exactly(WORLD, copy.deepcopy(MODEL), loss, **settings)


OTHERS = ((0.2, 0.5, 1), (0.5, 1.0, 2), (1.0, 1.5, 3))
BETAS = [*(pytest.param(*some, marks=pytest.mark.slow) for some in OTHERS), (2.0, 2.0, 4)]


@pytest.mark.parametrize(("beta", "scale", "seed"), BETAS)
def test_expected_dpo_with_bradley_terry_labels_reaches_the_optimum(beta, scale, seed):
    """Sec. 4: the minimiser of the DPO loss is π* ∝ π_ref·exp(r/β), here to 1e-3 nats, whatever β and r."""
    rewards = WORLD.random_rewards(seed, scale).float()
    best, _ = optimum(REFERENCE, rewards, beta=beta)
    assert distance(REFERENCE, best) > 0.25
    wins = win_probabilities(REFERENCE, rewards)
    assert distance(fit(lambda policy: mean_dpo_loss(policy, REFERENCE, wins, beta=beta)), best) <= 1e-3


def test_the_error_falls_with_the_number_of_pairs(record_property):
    """KL(π‖π*) falls about as 1/n once most completions were compared; slope on log axes over a factor of 16."""
    rewards = WORLD.random_rewards(1).float()
    best, _ = optimum(REFERENCE, rewards, beta=1.0)
    wins = win_probabilities(REFERENCE, rewards)
    counts, errors = [8000, 32_000, 128_000], []
    for count in counts:
        found = sample_wins(wins, count, seed=0)
        errors.append(
            distance(fit(lambda policy, w=found: mean_dpo_loss(policy, REFERENCE, w, beta=1.0), steps=800, lr=5e-3), best)
        )
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    record_property("slope", float(slope))
    print(f"KL(π‖π*) at n = {counts}: {errors}; slope {slope:.2f}")
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert -1.6 < slope < -0.6


@pytest.mark.slow
def test_expected_plackett_luce_dpo_reaches_the_optimum():
    """App. A.3: rankings of three, every order of each triple weighted by its Plackett-Luce probability."""
    rewards, beta = WORLD.random_rewards(2).float(), 0.5
    best, _ = optimum(REFERENCE, rewards, beta=beta)
    generator = torch.Generator().manual_seed(0)
    triples = torch.stack([torch.randperm(156, generator=generator)[:3] for _ in range(1500)])
    orders = torch.tensor(list(permutations(range(3))))
    ranked = triples[:, orders].flatten(0, 1)  # (1500·6, 3)
    mask = torch.ones(ranked.shape, dtype=torch.bool)
    nothing = torch.zeros(ranked.shape)
    weights = [(-plackett_luce_dpo_loss(row[ranked], nothing, mask, beta=1.0)).exp() for row in rewards]

    def loss(policy):
        return sum(
            (w * plackett_luce_dpo_loss(p[ranked], r[ranked], mask, beta=beta)).mean()
            for w, p, r in zip(weights, policy, REFERENCE, strict=True)
        )

    assert distance(fit(loss), best) <= 1e-3


def test_hard_labels_have_no_finite_optimum():
    """With labels that never err, every step along r lowers the loss: there is nothing to converge to."""
    rewards = WORLD.random_rewards(1)
    hard = win_probabilities(EXACT_REFERENCE, rewards, labels="hard")
    soft = win_probabilities(EXACT_REFERENCE, rewards)

    def along_r(wins, scale):
        policy = (EXACT_REFERENCE + scale * rewards).log_softmax(-1)
        return mean_dpo_loss(policy, EXACT_REFERENCE, wins, beta=1.0).item()

    steps = [0, 0.5, 1, 2, 4, 8, 16, 64]
    assert all(a > b for a, b in zip(*(lambda v: (v, v[1:]))([along_r(hard, s) for s in steps]), strict=False))
    assert along_r(hard, 1000) < 0.01
    values = [along_r(soft, s) for s in steps]
    assert min(values) == values[2]  # at scale 1/β = 1, the optimum, and nowhere else


@pytest.mark.slow
def test_with_hard_labels_longer_training_goes_further_and_beta_does_not_stop_it():
    rewards = WORLD.random_rewards(1).float()
    hard = win_probabilities(REFERENCE, rewards, labels="hard")
    best, _ = optimum(REFERENCE, rewards, beta=1.0)

    def kl_after(steps, beta=1.0):
        policy = fit(lambda p: mean_dpo_loss(p, REFERENCE, hard, beta=beta), steps=steps)
        return float(exact_kl(policy, REFERENCE.double()).mean())

    intended = float(exact_kl(best, REFERENCE).mean())  # what β = 1 would buy if labels were Bradley-Terry
    short, long = kl_after(200), kl_after(1600)
    assert long > 1.5 * short > 1.5 * intended
    assert kl_after(1600, beta=3.0) > intended  # three times the β, still further than β = 1 was to go


@pytest.mark.parametrize("labels", ["hard", "bradley_terry"])
def test_the_loss_knows_beta_only_through_the_scale_of_the_margins(labels):
    """L(h, β) = L(h/c, cβ): β alone puts no limit on h; a finite optimum must come from labels that err."""
    wins = win_probabilities(EXACT_REFERENCE, WORLD.random_rewards(1), labels=labels)
    h = torch.randn(REFERENCE.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = mean_dpo_loss(EXACT_REFERENCE + h, EXACT_REFERENCE, wins, beta=1.0)
    other = mean_dpo_loss(EXACT_REFERENCE + h / 4, EXACT_REFERENCE, wins, beta=4.0)
    assert one.item() == pytest.approx(other.item(), rel=1e-12)


seeds = st.integers(0, 2**31)
betas = st.floats(0.05, 5.0)


def table(seed, scale=1.0):
    return WORLD.random_rewards(seed, scale)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(-50, 50), st.floats(-50, 50))
def test_lemma_1_a_shift_per_prompt_changes_no_preference(seed, f_1, f_2):
    """Rewards r and r + f(x) induce the same Bradley-Terry and Plackett-Luce distributions."""
    rewards = table(seed)
    shifted = rewards + torch.tensor([[f_1], [f_2]], dtype=torch.float64)
    assert torch.allclose(
        win_probabilities(EXACT_REFERENCE, rewards), win_probabilities(EXACT_REFERENCE, shifted), rtol=0, atol=1e-12
    )
    ranked = torch.stack([torch.randperm(156)[:5] for _ in range(10)])
    mask, nothing = torch.ones(10, 5, dtype=torch.bool), torch.zeros(10, 5, dtype=torch.float64)
    for row, other in zip(rewards, shifted, strict=True):
        likelihoods = [plackett_luce_dpo_loss(r[ranked], nothing, mask, beta=1.0) for r in (row, other)]
        assert torch.allclose(*likelihoods, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, betas, st.floats(-20, 20))
def test_lemma_2_a_shift_per_prompt_changes_no_optimum(seed, beta, f):
    rewards = table(seed)
    shifted = rewards + torch.tensor([[f], [-f]], dtype=torch.float64)
    (best, z), (same, other_z) = (optimum(EXACT_REFERENCE, r, beta=beta) for r in (rewards, shifted))
    assert torch.allclose(best, same, rtol=0, atol=1e-9)
    assert torch.allclose(other_z - z, torch.tensor([f, -f], dtype=torch.float64) / beta, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, betas)
def test_theorem_1_the_implicit_reward_is_the_rewards_representative(seed, beta):
    """β·log(π*/π_ref) = r - β·log Z(x): the same class as r, and the one member with Σ π_ref·exp(r/β) = 1."""
    rewards = table(seed)
    best, log_partition = optimum(EXACT_REFERENCE, rewards, beta=beta)
    implicit = beta * (best - EXACT_REFERENCE)
    assert torch.allclose(implicit + beta * log_partition[:, None], rewards, rtol=0, atol=1e-9)
    assert torch.allclose(
        (EXACT_REFERENCE + implicit / beta).logsumexp(-1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9
    )
    # uniqueness (App. A.6): any other member of the class violates the constraint
    other = implicit + 0.1
    assert ((EXACT_REFERENCE + other / beta).logsumexp(-1).abs() > 0.01).all()


@settings(max_examples=15, deadline=None)
@given(seeds, betas)
def test_the_gradient_is_weighted_by_how_wrong_the_implicit_reward_is(seed, beta):
    """Sec. 4: ∇L = -β·σ(r̂_l - r̂_w)·[∇log π(y_w) - ∇log π(y_l)], through a real model's weights."""
    model = copy.deepcopy(MODEL).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed % 1000), dtype=p.dtype))
    w, l = (int(i) for i in torch.randperm(156, generator=torch.Generator().manual_seed(seed))[:2])  # noqa: E741
    weights = list(model.parameters())
    log_probs = WORLD.log_probs(model)[0]
    r_w, r_l = (beta * (log_probs[i] - EXACT_REFERENCE[0, i]) for i in (w, l))
    direction = torch.autograd.grad(log_probs[w] - log_probs[l], weights, retain_graph=True)
    sides = [t[None] for t in (log_probs[w], log_probs[l], EXACT_REFERENCE[0, w], EXACT_REFERENCE[0, l])]
    gradient = torch.autograd.grad(dpo_loss(*sides, beta=beta).sum(), weights)
    weight = -beta * torch.sigmoid(r_l - r_w).detach()
    for found, along in zip(gradient, direction, strict=True):
        assert torch.allclose(found, weight * along, rtol=0, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(seeds, betas)
def test_the_plackett_luce_gradient_is_weighted_likewise(seed, beta):
    """∂L/∂r̂_j = Σ_{k ≤ j} exp(r̂_j)/Σ_{i ≥ k} exp(r̂_i) - 1: how much of the tails' mass y_j holds, less its own place."""
    generator = torch.Generator().manual_seed(seed)
    logps = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 3:] = False
    plackett_luce_dpo_loss(logps, reference, mask, beta=beta).sum().backward()
    r = (beta * (logps - reference)).detach()
    for row in range(4):
        length = int(mask[row].sum())
        for j in range(5):
            share = sum(
                math.exp(r[row, j]) / sum(math.exp(r[row, i]) for i in range(k, length)) for k in range(min(j + 1, length))
            )
            expected = beta * (share - 1) if j < length else 0.0
            assert logps.grad[row, j].item() == pytest.approx(expected, abs=1e-9)
