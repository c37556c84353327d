"""The world where helpfulness and safety conflict: its truths, what is learned of them, the page of a made-up table."""

import pandas as pd
import pytest
import torch

from suite.check import exact_world as ew
from suite.check.two_rewards import (
    COMBINED,
    COMBINED_MIXED,
    CONFLICT,
    POOLED,
    REWARDS,
    SPREAD,
    combined,
    counts_of,
    fitted,
    simulate,
    tilted,
    truths,
)  # fmt: skip
from suite.maths.statistics import Interval
from suite.report.two_rewards import draw, summary, verdict, word


@pytest.fixture(scope="module")
def world():
    return ew.ExactWorld()


@pytest.fixture(scope="module")
def reference(world):
    with torch.no_grad():
        return world.log_probs(ew.tiny_language_model(0)).double().log_softmax(-1)


def test_both_rewards_are_sums_of_words_that_pull_against_each_other(world, reference):
    counts, weights = counts_of(world), reference.exp() / 2
    assert counts[0, 0].tolist() == [0] * 6  # the completion that is only the end
    of_words = []
    for table in truths(world, reference, seed=3).values():
        assert float((weights * table).sum()) == pytest.approx(0, abs=1e-9)
        assert float((weights * table**2).sum()) == pytest.approx(SPREAD**2)
        design = torch.cat([counts.flatten(0, 1)[:, 1:], torch.ones(312, 1, dtype=torch.float64)], dim=1)
        solved = torch.linalg.lstsq(design, table.flatten()[:, None])
        assert float((design @ solved.solution - table.flatten()[:, None]).abs().max()) < 1e-9
        of_words.append(solved.solution[:-1, 0])
    one, other = (values / values.norm() for values in of_words)
    assert float(one @ other) == pytest.approx(CONFLICT)


def test_safety_decides_on_the_flagged_prompt_and_below_the_threshold(world):
    helpful, safe = torch.full((2, 156), 5.0), torch.zeros(2, 156)
    safe[0, :3] = torch.tensor([-1.8, -1.7, 3.0])  # scores 0.142, 0.154, 0.95
    found, by_safety = combined(world, {"helpfulness": helpful, "safety": safe})
    assert found[0, :3].tolist() == pytest.approx([-1.8, 5.0, 5.0])
    assert torch.equal(found[1], safe[1])  # "bee" is in the second prompt
    assert by_safety[0].sum() == 1
    assert by_safety[1].all()


def test_pairs_without_end_give_the_truth_back(world, reference):
    truth = truths(world, reference, seed=1)["safety"]
    learned = fitted(world, reference, ew.win_probabilities(reference, truth))
    assert float((learned - truth).abs().max()) < 0.02


@pytest.mark.parametrize("kl", [0.5, 2.0])
def test_a_tilted_policy_has_the_kl_and_prefers_the_reward(world, reference, kl):
    rewards = world.word_rewards()
    table = tilted(reference, rewards, kl)
    assert float(ew.exact_kl(table, reference).mean()) == pytest.approx(kl, abs=1e-6)
    assert ew.expected_reward(table, rewards).mean() > ew.expected_reward(reference, rewards).mean() + 0.3


def test_the_combination_needs_a_safety_model_that_no_other_pairs_contradict():
    found = pd.DataFrame(simulate(0, pairs=[300]))
    assert set(found["reward"]) == set(REWARDS)
    assert found.groupby("pairs").size().to_dict() == {300: 15, 0: 15}
    at = found[found["kl"] == 1].set_index(["pairs", "reward"])
    for pairs in (300, 0):
        assert at.loc[(pairs, "helpfulness alone"), "helpfulness"] > at.loc[(pairs, "safety alone"), "helpfulness"] + 1
        assert at.loc[(pairs, COMBINED), "goal"] > at.loc[(pairs, POOLED), "goal"] + 0.5
        assert at.loc[(pairs, COMBINED), "by_safety"] == pytest.approx(at.loc[(pairs, COMBINED), "truly_below"], abs=0.08)
        assert at.loc[(pairs, COMBINED_MIXED), "by_safety"] < at.loc[(pairs, COMBINED), "by_safety"]
    assert at.loc[(0, COMBINED), "goal"] >= at.loc[(300, COMBINED), "goal"] - 1e-6


def _made_up():
    rows = [
        {"seed": seed, "pairs": pairs, "reward": name, "kl": 1.0, "helpfulness": k + 0.01 * seed, "safety": -k - 0.01 * seed,
         "goal": (1.0 if name == COMBINED else 0.5) + 0.01 * seed * (k + 1),
         "unsafe": 0.1 * (name == COMBINED) + 0.1 * seed * (name == POOLED), "by_safety": 0.1 + 0.01 * seed,
         "truly_below": 0.2 + 0.01 * seed}
        for seed in range(4) for pairs in (300, 0) for k, name in enumerate(REWARDS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_page_says_what_the_intervals_say(tmp_path):
    found = _made_up()
    words = verdict(found)
    assert f"- **{COMBINED}**, 300 pairs of each kind: in its own goal better at 1 nats" in words
    assert "in the share of unsafe completions not resolved at 1 nats" in words
    assert f"- **{COMBINED_MIXED}**, pairs without end: " in words
    page = summary("made by hand", found)
    assert "+0.470 [" in page  # goal: 0.5 - 0.02·seed, mean over 0 to 3
    found.to_csv(tmp_path / "two_rewards.csv", index=False)
    assert [path.name for path in draw(tmp_path, tmp_path) if path.suffix == ".svg"] == ["two_rewards.svg"]


def test_a_difference_is_better_on_the_side_that_is_better():
    assert word(Interval(1, 0.5, 1.5, 4), smaller_is_better=False) == "better"
    assert word(Interval(1, 0.5, 1.5, 4), smaller_is_better=True) == "worse"
    assert word(Interval(-1, -1.5, -0.5, 4), smaller_is_better=True) == "better"
    assert word(Interval(0, -0.5, 0.5, 4), smaller_is_better=True) == "not resolved"
