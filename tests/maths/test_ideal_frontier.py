"""The ideal frontier against the exact optimum, where it is known."""

import math

import numpy as np
import pytest
import torch

from suite.check.exact_world import ExactWorld, exact_kl, expected_reward, optimum, tiny_language_model
from suite.maths.ideal_frontier import IdealFrontier, ideal_frontier, optimality, tilted

WORLD = ExactWorld()
REWARDS = WORLD.word_rewards()


@pytest.fixture(scope="module")
def reference():
    with torch.no_grad():
        return WORLD.log_probs(tiny_language_model()).double().log_softmax(-1)


def samples(reference, count, seed=0):
    """Rewards of `count` samples per prompt, each prompt eight times over."""
    rows = reference.exp().repeat(8, 1)
    drawn = torch.multinomial(rows, count, replacement=True, generator=torch.Generator().manual_seed(seed))
    return REWARDS.repeat(8, 1).gather(1, drawn).numpy()


def exactly(reference, beta):
    best, _ = optimum(reference, REWARDS, beta=beta)
    return float(expected_reward(best, REWARDS).mean()), float(exact_kl(best, reference).mean())


@pytest.mark.parametrize("beta", [3.0, 1.0, 0.6])
def test_tilted_rewards_agree_with_the_optimum_by_enumeration(reference, beta):
    reward, kl, size = tilted(samples(reference, 20_000), beta)
    true_reward, true_kl = exactly(reference, beta)
    assert reward.mean() == pytest.approx(true_reward, abs=0.03)
    assert kl.mean() == pytest.approx(true_kl, rel=0.03)
    assert (size > 5).all()
    assert (size <= 20_000).all()


def test_the_frontier_from_512_samples_is_the_exact_one(reference):
    found = ideal_frontier(samples(reference, 512), maximum=float(REWARDS.max()))
    assert found.limit <= math.log(512) - 2
    for beta in (4.0, 2.0, 1.0, 0.7):
        true_reward, true_kl = exactly(reference, beta)
        assert true_kl < found.limit
        gain = true_reward - float(expected_reward(reference, REWARDS).mean())
        low, high = found.at(true_kl)
        assert low == high == pytest.approx(true_reward, abs=0.06 * gain)
    assert found.at(0.0)[0] == pytest.approx(samples(reference, 512).mean())
    assert (np.diff(found.reward) > 0).all()
    assert (np.diff(found.reward, 2) < 1e-3).all()  # concave
    assert (found.low[1:] <= found.reward[1:]).all()
    assert (found.reward[1:] <= found.high[1:]).all()
    assert found.effective_samples.min() >= 5


def test_no_policy_passes_it(reference):
    """Any policy of the world lies on or below: here Best-of-N and tilts towards other rewards."""
    found = ideal_frontier(samples(reference, 4096), maximum=float(REWARDS.max()))
    generator = torch.Generator().manual_seed(0)
    for strength in (0.2, 0.5, 1.0):
        noise = torch.randn(REWARDS.shape, generator=generator, dtype=torch.float64)
        other = (reference + strength * REWARDS + 0.5 * noise).log_softmax(-1)
        kl = float(exact_kl(other, reference).mean())
        assert kl < found.limit
        assert float(expected_reward(other, REWARDS).mean()) <= found.at(kl)[1] + 0.02


def test_with_few_samples_the_limit_is_near_and_beyond_it_there_is_a_band(reference):
    few, many = (ideal_frontier(samples(reference, n), maximum=9.0) for n in (32, 2048))
    assert few.limit <= math.log(32) - 2 < many.limit
    assert few.at(3.0) == (few.reward[-1], 9.0)


def test_what_is_estimated_is_the_gain(reference):
    """Prompts of other difficulty than those that methods are measured on move the curve as a whole."""
    rewards = samples(reference, 512)
    plain, moved = (ideal_frontier(rewards, maximum=math.inf, start=start) for start in (None, 5.0))
    assert moved.reward[0] == moved.low[0] == moved.high[0] == 5.0
    assert moved.reward - 5.0 == pytest.approx(plain.reward - rewards.mean())
    assert (moved.high - moved.low)[1:] == pytest.approx((plain.high - plain.low)[1:])


def test_with_a_largest_reward_the_share_of_the_way_to_it_is_carried_over(reference):
    """A reference that starts higher has less to gain: nothing passes the maximum."""
    rewards, top = samples(reference, 512), float(samples(reference, 512).max())
    plain, moved = (ideal_frontier(rewards, maximum=top, start=start) for start in (None, top - 0.01))
    assert plain.reward.max() - rewards.mean() > 0.5
    assert (top - moved.reward) / 0.01 == pytest.approx((top - plain.reward) / (top - rewards.mean()))
    assert moved.high.max() <= top
    assert moved.reward[0] == pytest.approx(top - 0.01)


def test_optimality_by_hand():
    assert optimality(0.7, 0.5, (0.9, 0.9)) == pytest.approx((0.5, 0.5))
    assert optimality(0.7, 0.5, (0.8, 1.0)) == pytest.approx((0.4, 2 / 3))
    assert all(map(math.isnan, optimality(0.7, 0.5, (0.5, 0.5))))
    ideal = IdealFrontier(*[np.array([0.0, 1.0])] * 5, limit=1.0, maximum=2.0)
    assert ideal.at(0.25) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("rewards", "word"), [(np.ones((3, 512)), "equal rewards"), (np.eye(4), "4 samples"), ([[np.nan]], "finite")]
)
def test_what_gives_no_frontier_is_said(rewards, word):
    with pytest.raises(ValueError, match=word):
        ideal_frontier(rewards, maximum=1.0)
    with pytest.raises(ValueError, match="beta"):
        tilted(np.eye(4), 0.0)
