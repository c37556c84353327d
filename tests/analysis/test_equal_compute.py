"""Who is better within a budget of compute, by hand: chosen on validation prompts, reported on test prompts."""

import math

import pandas as pd
import pytest

from suite.analysis.equal_compute import compare_within, compute_budgets
from suite.analysis.records import REFERENCE

# method, step, compute, validation reward, test rewards of four prompts
POLICIES = [
    (REFERENCE, 0, 0.0, 0.1, (0.1, 0.1, 0.1, 0.1)),
    ("DPO", 1, 10.0, 0.6, (0.4, 0.5, 0.6, 0.7)),
    ("DPO", 2, 20.0, 0.5, (0.9, 0.9, 0.9, 0.9)),
    ("PPO", 1, 15.0, 0.3, (0.31, 0.4, 0.5, 0.59)),
    ("PPO", 2, 40.0, 0.8, (0.51, 0.6, 0.7, 0.79)),
    ("Best-of-N", 0, 0.0, 0.9, (1.0, 1.0, 1.0, 1.0)),
]


def made(seeds=3):
    """Records and numbers, the same for every training seed."""
    records, numbers = [], []
    for method, step, compute, validation, test in POLICIES:
        for seed in range(1 if method == REFERENCE else seeds):
            point = {"method": method, "setting": "", "seed": seed, "step": step}
            about = {"n": 4, "privileged": False, "kl_is_bound": method == "Best-of-N", "compute": compute}
            for split, reward in (("validation", validation), ("test", sum(test) / 4)):
                for metric, value in (("reward", reward), ("kl", float(step))):
                    row = {"split": split, "metric": metric, "value": value, "ci_low": value, "ci_high": value}
                    records.append({**point, **about, **row})
            for k, reward in enumerate(test):
                row = {**point, "split": "test", "prompt_id": f"p{k}", "sample": 0}
                numbers += [{**row, "metric": m, "value": v} for m, v in (("reward", reward), ("kl", float(step)))]
    return pd.DataFrame(records), pd.DataFrame(numbers)


@pytest.fixture
def tables():
    return made()


def test_the_best_by_validation_reward_that_the_budget_pays_for(tables):
    found = compare_within(*tables, [12.0, 30.0, 50.0]).set_index(["budget", "method"])
    assert sorted(set(found.index.get_level_values("method"))) == ["DPO", "PPO"]  # Best-of-N is paid for when it is asked
    assert math.isnan(found.loc[(12.0, "PPO"), "reward"])
    for budget in (12.0, 30.0, 50.0):
        assert found.loc[(budget, "DPO"), "policy"] == "step 1"  # step 2 is better on test prompts, which may not choose
        assert found.loc[(budget, "DPO"), "reward"] == pytest.approx(0.55)
        assert found.loc[(budget, "DPO"), "kl"] == 1.0
    assert list(found.xs("PPO", level="method")["policy"][1:]) == ["step 1", "step 2"]


def test_differences_are_paired_by_prompt(tables):
    """Prompts differ by far more than the methods do, which differ by 0.1 on each."""
    found = compare_within(*tables, [30.0, 50.0]).set_index(["budget", "method"])
    for budget, gap, word in ((30.0, -0.1, "worse"), (50.0, 0.1, "better")):
        row = found.loc[(budget, "PPO")]
        assert row["difference"] == pytest.approx(gap)
        assert gap - 0.03 < row["difference_low"] < gap < row["difference_high"] < gap + 0.03
        assert row["verdict"] == word
        assert row["reward_high"] - row["reward_low"] > 0.1
    turned = compare_within(*tables, [30.0], against="PPO").set_index("method")
    assert turned.loc["DPO", "difference"] == pytest.approx(0.1)
    assert turned.loc["DPO", "verdict"] == "better"


def test_one_seed_gives_no_verdict():
    found = compare_within(*made(seeds=1), [30.0]).set_index("method")
    assert found.loc["PPO", "difference"] == pytest.approx(-0.1)
    assert found.loc["PPO", "verdict"] == "one seed: these policies"


def test_what_was_not_searched_is_not_judged(tables):
    found = compare_within(*tables, [30.0], unsearched={"PPO"}).set_index("method")
    assert found.loc["PPO", "verdict"] == "rate not searched"


def test_every_seed_chooses_for_itself(tables):
    """By the validation prompts of seed 1, its step 2 is DPO's best; the mean is over what each has chosen."""
    records, numbers = tables
    theirs = (records["method"] == "DPO") & (records["seed"] == 1) & (records["step"] == 2) & (records["split"] == "validation")
    records.loc[theirs & (records["metric"] == "reward"), "value"] = 0.7
    found = compare_within(records, numbers, [30.0]).set_index("method")
    assert found.loc["DPO", "reward"] == pytest.approx((0.55 + 0.9 + 0.55) / 3)
    assert found.loc["DPO", "kl"] == pytest.approx((1 + 2 + 1) / 3)


def test_whom_a_budget_leaves_without_a_policy_is_compared_with_nobody(tables):
    records, numbers = tables
    noisy = (numbers["method"] == "PPO") & (numbers["step"] == 2) & (numbers["metric"] == "reward")
    numbers.loc[noisy, "value"] = [0.5, 0.9, 0.4, 0.8] * 3

    def width(budgets):
        row = compare_within(records, numbers, budgets).set_index(["budget", "method"]).loc[(50.0, "PPO")]
        return row["difference_high"] - row["difference_low"]

    assert width([50.0]) == width([50.0, 5.0])
    assert width([50.0]) == pytest.approx(width([50.0, 60.0, 70.0]), rel=0.2)  # the same comparison three times is one


def test_budgets_are_multiples_of_a_whole_run(tables):
    assert compute_budgets(tables[0]) == [10.0, 20.0, 40.0, 80.0]
    assert compute_budgets(tables[0], against="Nobody") == [20.0, 40.0, 80.0, 160.0]
