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


def of_runs(means):
    """Numbers of runs (arm, method, seed) with these means, of which prompts scatter alike."""
    rng = np.random.default_rng(0)
    rows = []
    for (arm, method, seed), (helpful, safe) in means.items():
        for prompt in range(40):
            for metric, value in (("helpfulness", helpful), ("safety", safe)):
                for step in (2, 4) if method != "SFT" else (0,):  # the first is not looked at
                    shown = value + 0.1 * prompt + 0.05 * rng.standard_normal() + (99 if step == 2 else 0)
                    rows.append((arm, method, "", seed, step, f"p{prompt}", metric, shown))
    return pd.DataFrame(rows, columns=["arm", "method", "setting", "seed", "step", "prompt_id", "metric", "value"])


def test_differences_are_of_the_same_seed_and_the_last_policies():
    """Seeds differ by far more than methods: paired with another seed, nothing of this would be seen."""
    runs = {("", "DPO", seed): (10.0 * seed, 0.0) for seed in range(3)}
    runs |= {("two models", "PPO", seed): (10.0 * seed + 1.0, -0.5 - 0.01 * seed) for seed in range(3)}
    found = differences(of_runs(runs), "DPO").set_index("metric")
    assert found["difference"].tolist() == pytest.approx([1.0, -0.51], abs=0.03)
    assert (found["high"] - found["low"]).max() < 0.3
    assert found["seeds"].tolist() == [3, 3]
    assert found["n"].tolist() == [40, 40]
    assert set(found["verdict"]) == {"rate not searched"}
    assert set(found["method"]) == {"PPO"}


def test_the_reference_is_held_against_every_seed_and_a_run_without_a_seed_is_left_out():
    runs = {("", "DPO", seed): (10.0 * seed, 0.0) for seed in range(2)} | {("", "SFT", 0): (0.0, 1.0)}
    runs |= {("one model", "PPO", 1): (11.0, 0.0)}
    found = differences(of_runs(runs), "DPO")
    assert set(found["method"]) == {"SFT"}
    by_metric = found[found["method"] == "SFT"].set_index("metric")
    assert by_metric.loc["helpfulness", "difference"] == pytest.approx(-5.0, abs=0.05)
    assert set(found["verdict"]) == {"2 seeds: these policies"}
