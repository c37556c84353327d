"""The world where helpfulness and safety conflict: its truths by hand, the tilt at a KL, and the page from a made-up table."""

import pandas as pd
import pytest
import torch

from suite.check import exact_world as ew
from suite.check.two_rewards import CONFLICT, REWARDS, SPREAD, goal, simulate, tilted, truths, without_error
from suite.maths.statistics import Interval
from suite.report.two_rewards import draw, summary, verdict, word


@pytest.fixture(scope="module")
def world():
    return ew.ExactWorld()


@pytest.fixture(scope="module")
def reference(world):
    with torch.no_grad():
        return world.log_probs(ew.tiny_language_model(0)).double().log_softmax(-1)


def test_both_rewards_have_the_spread_and_pull_against_each_other(world, reference):
    of = truths(world, reference, seed=3)
    weights = reference.exp() / 2
    for table in of.values():
        assert float((weights * table).sum()) == pytest.approx(0, abs=1e-9)
        assert float((weights * table**2).sum()) == pytest.approx(SPREAD**2)
    both = torch.stack([table.flatten() for table in truths(world, torch.zeros_like(reference), 3).values()])
    assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(CONFLICT, abs=0.35)  # of words, not of completions


def test_the_goal_is_safety_on_the_flagged_prompt_and_below_the_threshold(world):
    one, other = torch.full((2, 156), 5.0), torch.zeros(2, 156)
    other[0, :3] = torch.tensor([-1.8, -1.7, 3.0])  # scores 0.142, 0.154, 0.95
    found = goal(world, {"helpfulness": one, "safety": other})
    assert found[0, :3].tolist() == pytest.approx([-1.8, 5.0, 5.0])
    assert torch.equal(found[1], other[1])  # "bee" is in the second prompt
    perfect = without_error(world, {"helpfulness": one, "safety": other})
    assert torch.equal(perfect["combined"], found)
    assert perfect["one model of all pairs"][0, 2] == 4.0


@pytest.mark.parametrize("kl", [0.5, 2.0])
def test_a_tilted_policy_has_the_kl_and_prefers_the_reward(world, reference, kl):
    rewards = world.word_rewards()
    table = tilted(reference, rewards, kl)
    assert float(ew.exact_kl(table, reference).mean()) == pytest.approx(kl, abs=1e-6)
    assert ew.expected_reward(table, rewards).mean() > ew.expected_reward(reference, rewards).mean() + 0.3


def test_every_reward_is_there_at_every_number_of_pairs_and_learning_has_an_effect():
    found = pd.DataFrame(simulate(0, pairs=[60]))
    assert set(found["reward"]) == set(REWARDS)
    assert found.groupby("pairs").size().to_dict() == {60: 12, 0: 12}
    at = found[found["kl"] == 1].set_index(["pairs", "reward"])
    for pairs in (60, 0):
        assert at.loc[(pairs, "helpfulness alone"), "helpfulness"] > at.loc[(pairs, "safety alone"), "helpfulness"] + 1
        assert at.loc[(pairs, "safety alone"), "safety"] > at.loc[(pairs, "helpfulness alone"), "safety"] + 1
    assert at.loc[(0, "combined"), "goal"] > at.loc[(60, "combined"), "goal"]  # no error is better than some
    assert (found["unsafe"].between(0, 1)).all()


def _made_up():
    rows = [
        {"seed": seed, "pairs": pairs, "reward": name, "kl": 1.0, "helpfulness": k + 0.01 * seed, "safety": -k - 0.01 * seed,
         "goal": (1.0 if name == "combined" else 0.5) + 0.01 * seed * (k + 1), "unsafe": 0.1 * (k == 0) + 0.1 * seed * (k == 1)}
        for seed in range(4) for pairs in (300, 0) for k, name in enumerate(REWARDS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_page_says_what_the_intervals_say(tmp_path):
    found = _made_up()
    words = verdict(found)
    assert "- **300** pairs: the combination is in its own goal better at 1 nats" in words
    assert "in the share of unsafe completions not resolved at 1 nats" in words
    assert "- **rewards without error**:" in words
    page = summary("made by hand", found)
    assert "+0.485 [" in page  # goal: 0.5 - 0.01·seed, mean over 0 to 3
    found.to_csv(tmp_path / "two_rewards.csv", index=False)
    assert [path.name for path in draw(tmp_path, tmp_path) if path.suffix == ".svg"] == ["two_rewards.svg"]


def test_a_difference_is_better_on_the_side_that_is_better():
    assert word(Interval(1, 0.5, 1.5, 4), smaller_is_better=False) == "better"
    assert word(Interval(1, 0.5, 1.5, 4), smaller_is_better=True) == "worse"
    assert word(Interval(-1, -1.5, -0.5, 4), smaller_is_better=True) == "better"
    assert word(Interval(0, -0.5, 0.5, 4), smaller_is_better=True) == "not resolved"
