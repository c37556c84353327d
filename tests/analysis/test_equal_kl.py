"""Who is better at equal KL, from made-up records whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from suite.analysis.equal_kl import AREA, compare, frontiers
from suite.analysis.records import REFERENCE, chosen_policies
from suite.maths.frontier import Frontier
from suite.maths.ideal_frontier import IdealFrontier
from suite.report.tables import matched_kl_table

PROMPTS = [f"p{i:03d}" for i in range(200)]
# method → (setting, step) → (KL, validation reward, test reward) of its seeds
POINTS = {
    "DPO": {("b", 1): [(1.0, 0.75, 0.70)], ("b", 2): [(2.0, 0.9, 0.80)], ("b", 3): [(1.5, 0.72, 0.99)]},
    "Same": {("", 1): [(2.0, 0.8, 0.795)]},
    "Worse": {
        ("", 1): [
            (2.0, 0.6, 0.60),
        ],
    },
    "Seeds": {("", 1): [(2.0, 0.8, 0.82), (2.0, 0.8, 0.88)]},
}


def row(method, setting, seed, step, split, kl, reward):
    point = {"method": method, "setting": setting, "seed": seed, "step": step, "split": split, "privileged": False,
             "kl_is_bound": False, "compute": 0.0}  # fmt: skip
    return [
        {**point, "metric": m, "value": v, "ci_low": v, "ci_high": v, "n": 200} for m, v in (("kl", kl), ("reward", reward))
    ]


def measured(method, setting, seed, step, reward, kl):
    """Two numbers of every test prompt."""
    point = {
        "method": method,
        "setting": setting,
        "seed": seed,
        "step": step,
        "split": "test",
        "prompt_id": PROMPTS,
        "sample": 0,
    }
    return pd.concat([pd.DataFrame({**point, "metric": m, "value": v}) for m, v in (("reward", reward), ("kl", kl))])


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.15, 200)
    difficulty -= difficulty.mean()
    rows = row(REFERENCE, "", 0, 0, "validation", 0.0, 0.5) + row(REFERENCE, "", 0, 0, "test", 0.0, 0.5)
    numbers = [measured(REFERENCE, "", 0, 0, 0.5 + difficulty, 0.0)]
    for method, policies in POINTS.items():
        for (setting, step), seeds in policies.items():
            for seed, (kl, validation, test) in enumerate(seeds):
                rows += row(method, setting, seed, step, "validation", kl, validation)
                rows += row(method, setting, seed, step, "test", kl, test)
                noise = rng.normal(0, 0.05, 200)
                numbers.append(measured(method, setting, seed, step, test + difficulty + noise - noise.mean(), kl))
    return pd.DataFrame(rows), pd.concat(numbers, ignore_index=True)


def test_the_hull_is_chosen_on_validation_prompts(tables):
    """DPO's step 3 is best on test prompts and below the hull on validation prompts: it must not be used."""
    assert chosen_policies(tables[0])["DPO"] == [("b", 1), ("b", 2)]


def test_frontiers_hold_the_reference_and_the_chosen_policies(tables):
    found = frontiers(*tables)
    assert found["Seeds"].reward.shape == (2, 2, 200)
    assert found["Seeds"].reward.mean(axis=(0, 2)) == pytest.approx([0.5, 0.85])
    assert found["DPO"].at([2.0])[0] == pytest.approx(0.80)


def best_of(n, kl, numbers):
    """The rewards of "Same" as those of a Best-of-N."""
    values = numbers[(numbers["method"] == "Same") & (numbers["metric"] == "reward")]["value"]
    return measured("Best", f"n = {n}", 0, 0, values.to_numpy(), kl)


def test_best_of_n_is_placed_at_its_bound(tables):
    records, numbers = tables
    bound = pd.DataFrame(row("Best", "n = 4", 0, 0, "test", 0.64, 0.7)).assign(kl_is_bound=True)
    found = frontiers(pd.concat([records, bound]), pd.concat([numbers, best_of(4, 0.64, numbers)]))
    assert found["Best"].kl.mean(axis=(0, 2)) == pytest.approx([0.0, 0.64])


def test_of_best_of_n_every_n_counts_also_where_the_test_reward_falls(tables):
    """A reward that is exploited: n = 16 is worse than n = 4 on test prompts, which may not decide what is compared."""
    records, numbers = tables
    parts = [row("Best", f"n = {n}", 0, 0, "test", kl, reward) for n, kl, reward in ((4, 0.64, 0.7), (16, 1.84, 0.65))]
    more = [best_of(n, kl, numbers) for n, kl in ((4, 0.64), (16, 1.84))]
    together = pd.concat([records, *(pd.DataFrame(part).assign(kl_is_bound=True) for part in parts)])
    assert chosen_policies(together)["Best"] == [("n = 4", 0), ("n = 16", 0)]
    assert frontiers(together, pd.concat([numbers, *more]))["Best"].kl.mean(axis=(0, 2)) == pytest.approx([0.0, 0.64, 1.84])


@pytest.fixture(scope="module")
def comparison(tables):
    ideal = IdealFrontier(*[np.array([0.0, 4.0])] * 5, limit=4.0, maximum=5.0)
    return compare(frontiers(*tables), against="DPO", budgets=(2.0, 6.0), ideal=ideal).set_index(["kl_budget", "method"])


def test_verdicts(comparison):
    for budget in ("2", "6", AREA):
        assert comparison.loc[(budget, "Worse"), "verdict"] == "worse"
        assert comparison.loc[(budget, "DPO"), "verdict"] == ""
    assert comparison.loc[("2", "Seeds"), "verdict"] == "better"
    assert comparison.loc[("2", "Same"), "verdict"] == "equivalent"  # its corrected interval lies within ± 0.02
    assert comparison.loc[(AREA, "Same"), "verdict"] == "not resolved"
    same = comparison.loc[("2", "Same")]
    assert same["difference"] == pytest.approx(-0.005)
    assert same["difference_low"] < 0 < same["difference_high"]
    # sd of the paired difference is .05·√2; at Bonferroni's level .05/9 the gap is (2.77 + .84)·sd/√200
    assert same["detectable"] == pytest.approx(3.61 * 0.05 * math.sqrt(2 / 200), rel=0.1)


def test_difficulty_of_prompts_cancels(comparison):
    worse = comparison.loc[("2", "Worse")]
    assert worse["high"] - worse["low"] > 0.035  # ± 1.96·.158/√200 on its own
    # of the paired difference ± 2.77·.05·√2/√200, at Bonferroni's level .05/9
    assert worse["difference_high"] - worse["difference_low"] == pytest.approx(2 * 2.77 * 0.05 * math.sqrt(2 / 200), rel=0.1)
    assert worse["probability_of_improvement"] < 0.02


def test_seeds_have_an_interval_of_their_own(comparison):
    """.82 and .88: .85 ± 12.7·.03; one seed has none."""
    seeds = comparison.loc[("2", "Seeds")]
    assert seeds["seed_high"] - seeds["reward"] == pytest.approx(12.706 * 0.03, rel=1e-3)
    assert math.isnan(comparison.loc[("2", "DPO"), "seed_low"])


def test_optimality(comparison):
    assert comparison.loc[("2", "DPO"), "optimality_low"] == pytest.approx(0.3 / 1.5)
    assert comparison.loc[("6", "DPO"), "optimality_low"] == pytest.approx(0.3 / 4.5)
    assert comparison.loc[("6", "DPO"), "optimality_high"] == pytest.approx(0.3 / 3.5)


def test_p_values_are_corrected_upwards(comparison):
    tested = comparison[comparison["p"].notna()]
    assert len(tested) == 9
    assert (tested["p_holm"] >= tested["p"]).all()
    assert tested["p"].min() * 9 == pytest.approx(tested["p_holm"].min())


def test_the_table_for_reading(comparison):
    page = matched_kl_table(comparison.reset_index())
    assert "| equivalent " in page
    assert "≤ 0.0" in page  # the floor of the resampling is no exact value
    assert "20%" in page
    assert "7%–9%" in page
    assert "K = 2" in page


def test_where_nothing_is_resolved_the_table_says_what_would_show(tables):
    found = frontiers(*tables)
    noise = np.random.default_rng(1).normal(0, 0.3, 200)
    unsure = Frontier(found["Same"].reward + (noise - noise.mean()), found["Same"].kl)
    page = matched_kl_table(compare({"DPO": found["DPO"], "Unsure": unsure}, against="DPO", budgets=(2.0,)))
    assert "not resolved (a gap of 0." in page
    assert "would show)" in page
    assert "tied" not in page


def test_no_policies_no_comparison():
    assert compare({}, against="DPO").empty
