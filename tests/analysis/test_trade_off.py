"""Two rewards of every policy, from a table made by hand."""

import numpy as np
import pandas as pd
import pytest

from suite.analysis.trade_off import differences, points, undominated

POLICIES = {("", "DPO", "", 0, 4): (1.0, 0.0), ("two models", "PPO", "", 0, 4): (2.0, -1.0), ("", "PPO", "", 0, 2): (0.5, -2.0)}


@pytest.fixture
def measurements():
    rows = []
    for (arm, method, setting, seed, step), (helpful, safe) in POLICIES.items():
        for prompt in range(8):
            for sample in range(2):
                noise = 0.1 * prompt + 0.01 * sample  # the same for every policy: prompts are paired
                values = {"helpfulness": helpful + noise, "safety": safe - noise, "kl": 3.0 + sample, "tokens": 10.0}
                rows += [
                    {"arm": arm, "method": method, "setting": setting, "seed": seed, "step": step, "prompt_id": f"p{prompt}",
                     "sample": sample, "metric": name, "value": value}
                    for name, value in values.items()
                ]  # fmt: skip
    return pd.DataFrame(rows)


def test_means_are_over_prompts_and_the_policies_that_none_beats_are_marked(measurements):
    found = points(measurements)
    assert found["helpfulness"].tolist() == pytest.approx([1.355, 2.355, 0.855])
    assert found["safety"].tolist() == pytest.approx([-0.355, -1.355, -2.355])
    assert found["kl"].tolist() == [3.5] * 3
    assert found["best"].tolist() == [True, True, False]
    assert found["n"].tolist() == [8] * 3
    assert (found["helpfulness_low"] < found["helpfulness"]).all()


def test_a_tie_in_both_beats_nobody_and_a_tie_in_one_does():
    assert undominated(np.array([[1.0, 1.0], [1.0, 1.0]])) == [True, True]
    assert undominated(np.array([[1.0, 1.0], [1.0, 2.0], [0.0, 3.0]])) == [False, True, True]


def test_differences_are_on_the_same_prompts_and_corrected_for_their_number(measurements):
    key = ("two models", "PPO", "", 0, 4)
    shifted = measurements.copy()
    noisy = (shifted["arm"] == "two models") & (shifted["metric"] == "safety")
    shifted.loc[noisy, "value"] += np.linspace(0, 0.8, 8).repeat(2)
    alone, both = (
        differences(shifted, who, ("", "DPO", "", 0, 4)).set_index(["method", "step", "metric"])
        for who in ([key], [key, ("", "PPO", "", 0, 2)])
    )
    assert alone.loc[("PPO", 4, "helpfulness"), "difference"] == pytest.approx(1.0)
    row, wider = (table.loc[("PPO", 4, "safety")] for table in (alone, both))
    assert row["difference"] == pytest.approx(-0.6)
    assert row["high"] < 0 < row["high"] - row["low"] < wider["high"] - wider["low"]  # four comparisons instead of two
