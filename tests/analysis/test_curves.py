"""Curves beside each other, by hand: signs, common prompts, and corrected intervals that decide."""

import numpy as np
import pandas as pd
import pytest

from suite.analysis.curves import beats_half, compare_curves, ends_of, p_value
from suite.maths.statistics import paired_difference


def points(method, values, *, x=1.0, panel="temperature", metric="win", setting="", first=0):
    place = {"method": method, "setting": setting, "seed": 0, "step": 1, "panel": panel, "x": x, "temperature": x}
    prompts = [f"p{first + k}" for k in range(len(values))]
    return pd.DataFrame({**place, "split": "test", "prompt_id": prompts, "sample": 0, "metric": metric, "value": values})


def test_the_sign_is_the_policys_less_against():
    table = pd.concat([points("DPO", [1.0] * 6 + [0.0] * 2), points("PPO", [0.0] * 6 + [0.5] * 2)])
    (row,) = compare_curves(table, "DPO").to_dict("records")
    assert row["policy"] == "PPO"
    assert row["difference"] == pytest.approx((-6 + 1) / 8)
    assert (row["panel"], row["x"], row["temperature"], row["n"], row["verdict"]) == ("temperature", 1.0, 1.0, 8, "worse")
    (turned,) = compare_curves(table, "PPO").to_dict("records")
    assert turned["difference"] == -row["difference"]
    assert turned["verdict"] == "better"
    assert turned["p"] == row["p"]


def test_only_common_prompts_of_the_same_place_are_compared():
    table = pd.concat([
        points("DPO", [1.0, 1.0, 0.0, 0.0]), points("PPO", [1.0, 1.0, 1.0, 0.0], first=1),
        points("PPO", [0.0] * 4, x=0.0), points("Few", [0.0, 0.0], first=2),
    ])  # fmt: skip
    (row,) = compare_curves(table).to_dict("records")
    assert (row["policy"], row["n"]) == ("PPO", 3)
    assert row["difference"] == pytest.approx((0 + 1 + 1) / 3)
    assert compare_curves(table, "Gone").empty


def test_several_samples_of_a_prompt_count_by_their_mean():
    ours = [points("DPO", [1.0, 0.0, 0.0]).assign(sample=0), points("DPO", [1.0, 1.0, 0.0]).assign(sample=1)]
    (row,) = compare_curves(pd.concat([*ours, points("PPO", [0.0, 1.0, 1.0])])).to_dict("records")
    assert (row["difference"], row["n"]) == (pytest.approx((-1 + 0.5 + 1) / 3), 3)


def test_intervals_are_corrected_over_the_panel_and_decide():
    """A gap that one comparison resolves and twenty do not."""
    rng = np.random.default_rng(0)
    start = rng.random(100)
    noise = rng.normal(0, 0.26, 100)
    ours = start + 0.06 + noise - noise.mean()

    def compared(others):
        parts = [points("DPO", start), points("Mine", ours), *(points(f"M{k}", start) for k in range(others))]
        return compare_curves(pd.concat(parts)).set_index("policy").loc["Mine"]

    alone, among = compared(0), compared(19)
    for row, level in ((alone, 0.95), (among, 1 - 0.05 / 20)):
        assert (row["low"], row["high"]) == pytest.approx(paired_difference(ours, start, level=level)[1:3])
    assert (alone["verdict"], among["verdict"]) == ("better", "not resolved")
    assert among["p"] == pytest.approx(20 * alone["p"])  # Holm


def test_rewards_are_compared_where_nobody_won_anything():
    of = {"DPO": [0.5, 0.5, 0.5], "PPO": [0.504, 0.505, 0.506]}
    table = pd.concat([points(method, values, metric="reward") for method, values in of.items()])
    (row,) = compare_curves(table).to_dict("records")
    assert row["difference"] == pytest.approx(0.005)
    assert row["verdict"] == "better"  # above 0 on every prompt, however little


def test_the_coldest_less_the_hottest():
    table = pd.concat([points("DPO", values, x=x) for x, values in ((1.0, [0.0] * 12), (0.0, [1.0] * 12), (0.5, [0.5] * 12))])
    (row,) = ends_of(table, "temperature").to_dict("records")
    assert row["policy"] == "DPO, T = 0 minus T = 1"
    assert (row["difference"], row["verdict"]) == (1.0, "better")
    assert 0.3 < row["low"] < row["high"] == 1  # twelve prompts of twelve are no certainty
    (few,) = ends_of(table[table["prompt_id"].isin(["p0", "p1", "p2"])], "temperature").to_dict("records")
    assert (few["difference"], few["verdict"]) == (1.0, "not resolved")
    assert ends_of(table[table["x"] == 1.0], "temperature").empty


def test_beside_a_half():
    bounds = ((0.51, 0.7), (0.3, 0.49), (0.49, 0.51), (0.4, 0.6), (float("nan"), float("nan")))
    assert [beats_half(*of) for of in bounds] == ["better", "worse", "equivalent", "not resolved", "not resolved"]


def test_p_of_equal_differences_is_that_of_equal_signs():
    assert p_value(pd.Series([0.0] * 5)) == 1.0
    assert p_value(pd.Series([1.0] * 5)) == 2**-4
    assert p_value(pd.Series([1.0, 0.0, -1.0])) == pytest.approx(1.0)
