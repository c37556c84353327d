"""Best-of-N from samples of the reference, by hand."""

import math

import pandas as pd
import pytest

from suite.evaluation.best_of_n import kept_sample, pool_rows


def test_the_expected_reward_of_a_pool_by_hand():
    rewards = pd.DataFrame([[0.0, 1.0, 2.0], [3.0, 3.0, 9.0]], index=["a", "b"])
    rows = pool_rows(rewards, 2)
    assert list(rows.columns) == ["split", "prompt_id", "sample", "metric", "value"]
    assert set(rows["split"]) == {"test"}
    assert set(rows["sample"]) == {-1}
    of = rows.pivot(index="prompt_id", columns="metric", values="value")
    assert of["reward"].to_dict() == pytest.approx({"a": (1 + 2 + 2) / 3, "b": (3 + 9 + 9) / 3})  # of every two the best
    assert of["kl"].tolist() == pytest.approx([math.log(2) - 1 / 2] * 2)


def test_one_of_a_pool_is_the_reference():
    rewards = pd.DataFrame([[0.0, 1.0, 5.0]], index=["a"])
    assert pool_rows(rewards, 1)["value"].tolist() == pytest.approx([2.0, 0.0])


def test_another_score_selects():
    rewards = pd.DataFrame([[0.0, 1.0, 2.0]], index=["a"])
    turned = pd.DataFrame([[2.0, 1.0, 0.0]], index=["a"])
    assert pool_rows(rewards, 2, turned)["value"].iloc[0] == pytest.approx((0 + 0 + 1) / 3)


def test_the_sample_that_is_kept_is_the_best_of_the_first_n():
    samples = pd.DataFrame(
        [("b", 0, "b0"), ("b", 1, "b1"), ("b", 2, "b2"), ("a", 0, "a0"), ("a", 1, "a1"), ("a", 2, "a2")],
        columns=["prompt_id", "sample", "text"],
    )
    scores = pd.DataFrame(
        [("a", 0, 1.0), ("a", 1, 1.0), ("a", 2, 5.0), ("b", 0, 0.0), ("b", 1, 2.0), ("b", 2, 1.0)],
        columns=["prompt_id", "sample", "score"],
    )
    kept = {n: kept_sample(samples, scores, n)[["prompt_id", "text"]].values.tolist() for n in (1, 2, 3)}
    assert kept[1] == [["b", "b0"], ["a", "a0"]]
    assert kept[2] == [["b", "b1"], ["a", "a0"]]  # of two equal ones the first
    assert kept[3] == [["b", "b1"], ["a", "a2"]]
