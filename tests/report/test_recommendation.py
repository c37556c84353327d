"""Which policy to take, from made-up numbers whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from suite.analysis.records import REFERENCE, Results
from suite.report.recommendation import recommendation

RNG = np.random.default_rng(0)
START = RNG.uniform(0.3, 0.5, 60)
PLACE = {"panel": "frontier", "x": 0.0, "temperature": 1.0}


def study(*policies):
    """method, setting, step, KL, validation reward, gain on test prompts."""
    records, numbers = [], []
    for method, setting, step, kl, validation, gain in [(REFERENCE, "", 0, 0.0, 0.4, 0.0), *policies]:
        point = {"method": method, "setting": setting, "seed": 0, "step": step, **PLACE}
        rewards = START + gain + (RNG.normal(0, 0.01, 60) if step else 0)
        about = {"privileged": False, "kl_is_bound": False, "compute": 1e6 * step, "run_seconds": 10.0 * step, "n": 60}
        for split, reward in (("validation", validation), ("test", rewards.mean())):
            for metric, value in (("kl", kl), ("reward", reward)):
                row = {"split": split, "metric": metric, "value": value, "ci_low": value, "ci_high": value}
                records.append({**point, **about, **row, "run_key": "m"})
        ids = [f"p{k}" for k in range(60)]
        numbers.append(
            pd.DataFrame({**point, "split": "test", "prompt_id": ids, "sample": 0, "metric": "reward", "value": rewards})
        )
    runs = {"runs": {"m": {"inputs": {"policy": "t"}}, "t": {"config": {}}}}
    empty = pd.DataFrame()
    return Results({"reward": "r"}, pd.concat(numbers, ignore_index=True), pd.DataFrame(records), empty, empty, runs=runs)


def test_validation_prompts_choose_and_test_prompts_report():
    text = recommendation(study(("DPO", "a", 4, 3.0, 0.7, 0.2), ("PPO", "", 8, 5.0, 0.6, 0.3), ("DPO", "b", 2, 1.0, 0.5, 0.4)))
    assert text.startswith("**Take DPO a, step 4**: reward 0.6")
    assert "at 3.0 nats from the reference, on 60 test prompts, which did not choose it" in text
    assert "It took 4 million forward tokens (40 s of training)." in text
    gap = float(text.partition("PPO, step 8 ")[2].partition(" ")[0])
    assert gap == pytest.approx(-0.1, abs=0.01)
    assert "SFT (reference) +0.2" in text
    assert "more prompts (PPO, step 8 not told apart from it)" in text
    assert "a KL budget below 3.0 nats (up to 10 were allowed)" in text


def test_a_policy_beyond_the_budget_is_not_taken():
    policies = ("DPO", "a", 4, 12.0, 0.9, 0.5), ("PPO", "", 8, 5.0, 0.6, 0.3)
    assert recommendation(study(*policies)).startswith("**Take PPO, step 8**")
    assert recommendation(study(*policies), max_kl=20.0).startswith("**Take DPO a, step 4**")
    assert recommendation(study(policies[0])) == ""


@pytest.mark.parametrize("gain", [0.0, -0.2])
def test_nothing_that_is_not_better_than_the_reference_is_recommended(gain):
    text = recommendation(study(("DPO", "a", 4, 3.0, 0.7, gain)))
    assert text.startswith("**No policy is shown to be better than the reference.** First is DPO a, step 4: reward")
