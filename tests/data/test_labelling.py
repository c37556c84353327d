import numpy as np
import pandas as pd
import pytest

from suite.data.labelling import label_pairs


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
    assert counts == {"pairs": 6, "dropped_identical": 0, "dropped_tied": 0}
    assert (pairs["chosen_reward"] > pairs["rejected_reward"]).all()
    best = pairs[pairs["chosen_text"] == "t1"]
    assert len(best) == 3
    assert (best["reference_chosen_logps"] == -1.0).all()


def test_ties_and_identical_completions_are_dropped_and_counted():
    table = completions([0.5, 0.5, 0.5, 0.9], ids=[[1], [1], [2], [3]])
    pairs, counts = label_pairs(table, labels="hard", scale=1.0, seed=0)
    assert counts == {"pairs": 3, "dropped_identical": 1, "dropped_tied": 2}
    assert (pairs["chosen_reward"] == 0.9).all()


def test_bradley_terry_labels_follow_the_model():
    table = pd.concat([completions([0.2, 0.7], prompt=f"p{i}") for i in range(4000)])
    pairs, _ = label_pairs(table, labels="bradley_terry", scale=2.0, seed=0)
    share = (pairs["chosen_reward"] == 0.7).mean()
    expected = 1 / (1 + np.exp(-2.0 * 0.5))
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000))
    again, _ = label_pairs(table, labels="bradley_terry", scale=2.0, seed=0)
    assert pairs.equals(again)


def test_bad_arguments():
    with pytest.raises(ValueError, match="labels"):
        label_pairs(completions([0.1, 0.2]), labels="soft", scale=1.0, seed=0)
    with pytest.raises(ValueError, match="scale"):
        label_pairs(completions([0.1, 0.2]), labels="hard", scale=0.0, seed=0)
