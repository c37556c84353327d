import numpy as np
import pandas as pd
import pytest

from suite.data.labelling import label_pairs, label_rankings
from suite.data.parquet import rankings_from_table
from suite.data.preference_data import Prompt


def completions(rewards, ids=None, prompt="p"):
    return pd.DataFrame(
        {
            "prompt_id": prompt,
            "sample": range(len(rewards)),
            "ids": ids or [[i + 1] for i in range(len(rewards))],
            "text": [f"t{i}" for i in range(len(rewards))],
            "truncated": False,
            "reward": rewards,
            "reference_logps": [-float(i) for i in range(len(rewards))],
        }
    )


def test_four_completions_give_six_pairs_and_the_higher_reward_wins():
    pairs, counts = label_pairs(completions([0.1, 0.9, 0.4, 0.6]), labels="hard", scale=1.0, seed=0)
    assert counts == {"pairs": 6, "turned": 0, "dropped_identical": 0, "dropped_tied": 0}
    assert (pairs["chosen_reward"] > pairs["rejected_reward"]).all()
    best = pairs[pairs["chosen_text"] == "t1"]
    assert len(best) == 3
    assert (best["reference_chosen_logps"] == -1.0).all()


def test_ties_and_identical_completions_are_dropped_and_counted():
    table = completions([0.5, 0.5, 0.5, 0.9], ids=[[1], [1], [2], [3]])
    pairs, counts = label_pairs(table, labels="hard", scale=1.0, seed=0)
    assert counts == {"pairs": 3, "turned": 0, "dropped_identical": 1, "dropped_tied": 2}
    assert (pairs["chosen_reward"] == 0.9).all()


def test_bradley_terry_labels_follow_the_model():
    table = pd.concat([completions([0.2, 0.7], prompt=f"p{i}") for i in range(1500)])
    pairs, _ = label_pairs(table, labels="bradley_terry", scale=2.0, seed=0)
    share = (pairs["chosen_reward"] == 0.7).mean()
    expected = 1 / (1 + np.exp(-2.0 * 0.5))
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 1500))
    again, _ = label_pairs(table, labels="bradley_terry", scale=2.0, seed=0)
    assert pairs.equals(again)


def test_noise_turns_so_many_labels_and_is_drawn_for_itself():
    table = pd.concat([completions([0.2, 0.7] if i % 2 else [0.7, 0.2], prompt=f"p{i}") for i in range(1500)])
    pairs, counts = label_pairs(table, labels="hard", scale=1.0, seed=0, noise=0.2)
    turned = (pairs["chosen_reward"] < pairs["rejected_reward"]).sum()
    assert counts["turned"] == turned == pytest.approx(300, abs=4 * np.sqrt(1500 * 0.2 * 0.8))
    keywords = {"labels": "bradley_terry", "scale": 2.0, "seed": 0}
    plain, noisy = (label_pairs(table, noise=noise, **keywords)[0]["chosen_reward"] for noise in (0.0, 0.2))
    assert 0.15 < (plain != noisy).mean() < 0.25  # the labels below are the same draw
    for noise in (-0.1, 0.5):
        with pytest.raises(ValueError, match=r"noise: expected a share in \[0, 0.5\)"):
            label_pairs(table, labels="hard", scale=1.0, seed=0, noise=noise)


def test_bad_arguments():
    with pytest.raises(ValueError, match="labels"):
        label_pairs(completions([0.1, 0.2]), labels="soft", scale=1.0, seed=0)
    with pytest.raises(ValueError, match="scale"):
        label_pairs(completions([0.1, 0.2]), labels="hard", scale=0.0, seed=0)


def test_rankings_are_by_reward_without_copies_and_ties():
    """Of two copies one stays; two different ones of equal reward both go."""
    frame, counts = label_rankings(
        completions([0.2, 0.9, 0.9, 0.5, 0.5, 0.1], ids=[[1], [2], [2], [3], [4], [5]]), labels="hard", scale=1.0, seed=0
    )
    assert [ids[0] for ids in frame["ids"]] == [2, 1, 5]
    assert frame["rank"].tolist() == [0, 1, 2]
    assert frame["reference_logps"].tolist() == [-1.0, 0.0, -5.0]
    assert counts == {"rankings": 1, "ranked_identical": 1, "ranked_tied": 2, "rankings_too_short": 0}
    nothing, counts = label_rankings(completions([0.5, 0.5]), labels="hard", scale=1.0, seed=0)
    assert len(nothing) == 0
    assert counts["rankings_too_short"] == 1


def test_noisy_rankings_follow_plackett_luce():
    """P(first) = softmax(scale·r): 2·[0, 0.5, 1] → weights 1, e, e²."""
    prompts = pd.concat([completions([0.0, 0.5, 1.0], prompt=f"p{i}") for i in range(1000)])
    frame, _ = label_rankings(prompts, labels="bradley_terry", scale=2.0, seed=0)
    first = frame[frame["rank"] == 0]["reward"]
    weights = np.exp([0.0, 1.0, 2.0])
    observed = [(first == r).mean() for r in (0.0, 0.5, 1.0)]
    assert observed == pytest.approx(list(weights / weights.sum()), abs=0.05)
    again, _ = label_rankings(prompts, labels="bradley_terry", scale=2.0, seed=0)
    pd.testing.assert_frame_equal(frame, again)


def test_rankings_come_back_from_their_table():
    frame, _ = label_rankings(completions([0.2, 0.9, 0.5]), labels="hard", scale=1.0, seed=0)
    (ranking,) = rankings_from_table(frame, [Prompt("p", (7,), "seven")])
    assert [c.ids for c in ranking.completions] == [(2,), (3,), (1,)]
    assert ranking.rewards == (0.9, 0.5, 0.2)
    assert ranking.reference_logps == (-1.0, -2.0, 0.0)
    assert ranking.completions[0].prompt.text == "seven"
