"""Who is better at equal KL, from made-up records whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from suite.analysis.equal_kl import SHARED, compare, frontiers, lines_of
from suite.analysis.records import REFERENCE, Results, chosen_policies
from suite.maths.frontier import Frontier
from suite.maths.ideal_frontier import IdealFrontier
from suite.report.tables import matched_kl_table

PROMPTS = [f"p{i:03d}" for i in range(200)]
SHIFTS = (-0.01, 0.0, 0.01)
"""What three training seeds do to every policy's reward alike."""
# method → (setting, step) → (KL, validation reward, test reward)
POINTS = {
    "DPO": {("b", 1): (1.0, 0.75, 0.70), ("b", 2): (2.0, 0.9, 0.80), ("b", 3): (1.5, 0.72, 0.99)},
    "Same": {("", 1): (1.0, 0.75, 0.695), ("", 2): (2.0, 0.8, 0.795)},
    "Worse": {("", 1): (1.0, 0.55, 0.55), ("", 2): (2.0, 0.6, 0.60)},
    "Late": {("", 1): (1.9, 0.8, 0.82), ("", 2): (2.1, 0.81, 0.83)},
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
        for (setting, step), (kl, validation, test) in policies.items():
            for seed, shift in enumerate(SHIFTS):
                rows += row(method, setting, seed, step, "validation", kl, validation)
                rows += row(method, setting, seed, step, "test", kl, test + shift)
                noise = rng.normal(0, 0.05, 200)
                numbers.append(measured(method, setting, seed, step, test + shift + difficulty + noise - noise.mean(), kl))
    return pd.DataFrame(rows), pd.concat(numbers, ignore_index=True)


def test_the_hull_is_chosen_on_validation_prompts(tables):
    """DPO's step 3 is best on test prompts and below the hull on validation prompts: it must not be used."""
    assert chosen_policies(tables[0])["DPO"] == {seed: [("b", 1), ("b", 2)] for seed in range(3)}


def test_every_seed_chooses_for_itself(tables):
    records = tables[0].copy()
    better = (records["method"] == "DPO") & (records["seed"] == 1) & (records["step"] == 3) & (records["split"] == "validation")
    records.loc[better & (records["metric"] == "reward"), "value"] = 0.95
    chosen = chosen_policies(records)["DPO"]
    assert (chosen[0], chosen[1]) == ([("b", 1), ("b", 2)], [("b", 3)])
    assert frontiers(records, tables[1])["DPO"].by_seed([2.0])[:, 0] == pytest.approx([0.79, 0.99, 0.81])


def test_frontiers_hold_the_reference_and_the_chosen_policies(tables):
    found = frontiers(*tables)
    assert list(found["Same"].seeds) == [0, 1, 2]
    assert [r.mean(axis=1) for r in found["Same"].reward] == [pytest.approx([0.5, 0.695 + s, 0.795 + s]) for s in SHIFTS]
    assert found["DPO"].at([2.0])[0] == pytest.approx(0.80)


def test_another_metric_of_the_same_policies(tables):
    odds = tables[1][tables[1]["metric"] == "reward"].assign(metric="log_odds", value=lambda t: 10 * t["value"])
    found = frontiers(tables[0], pd.concat([tables[1], odds]), "log_odds")
    assert found["DPO"].at([2.0])[0] == pytest.approx(8.0)
    assert frontiers(*tables, "log_odds") == {}


def best_of(n, kl, numbers):
    """The rewards of "Same" as those of a Best-of-N."""
    same = numbers[(numbers["method"] == "Same") & (numbers["step"] == 2) & (numbers["seed"] == 0)]
    values = same[same["metric"] == "reward"]["value"]
    return measured("Best", f"n = {n}", 0, 0, values.to_numpy(), kl)


def test_best_of_n_is_placed_at_its_bound(tables):
    records, numbers = tables
    bound = pd.DataFrame(row("Best", "n = 4", 0, 0, "test", 0.64, 0.7)).assign(kl_is_bound=True)
    found = frontiers(pd.concat([records, bound]), pd.concat([numbers, best_of(4, 0.64, numbers)]))
    assert found["Best"].kl[0].mean(axis=1) == pytest.approx([0.0, 0.64])


def test_of_best_of_n_every_n_counts_also_where_the_test_reward_falls(tables):
    """A reward that is exploited: n = 16 is worse than n = 4 on test prompts, which may not decide what is compared."""
    records, numbers = tables
    parts = [row("Best", f"n = {n}", 0, 0, "test", kl, reward) for n, kl, reward in ((4, 0.64, 0.7), (16, 1.84, 0.65))]
    more = [best_of(n, kl, numbers) for n, kl in ((4, 0.64), (16, 1.84))]
    together = pd.concat([records, *(pd.DataFrame(part).assign(kl_is_bound=True) for part in parts)])
    assert chosen_policies(together)["Best"] == {0: [("n = 4", 0), ("n = 16", 0)]}
    assert frontiers(together, pd.concat([numbers, *more]))["Best"].kl[0].mean(axis=1) == pytest.approx([0.0, 0.64, 1.84])


@pytest.fixture(scope="module")
def comparison(tables):
    ideal = IdealFrontier(*[np.array([0.0, 4.0])] * 5, limit=4.0, maximum=5.0)
    return compare(frontiers(*tables), against="DPO", budgets=(1.5, 6.0), ideal=ideal).set_index(["kl_budget", "method"])


def test_verdicts(comparison):
    for budget in ("1.5", SHARED):
        assert comparison.loc[(budget, "Worse"), "verdict"] == "worse"
        assert comparison.loc[(budget, "Same"), "verdict"] == "equivalent"  # its interval lies within ± 0.02
        assert comparison.loc[(budget, "DPO"), "verdict"] == ""
    same = comparison.loc[("1.5", "Same")]
    assert same["difference"] == pytest.approx(-0.005)
    assert same["difference_low"] < 0 < same["difference_high"]
    assert (same["seeds"], same["n"]) == (3, 200)


def test_where_a_method_has_no_policies_there_is_no_verdict(comparison):
    """Late begins at 1.9 nats; at 6 nats nobody has any."""
    assert comparison.loc[("1.5", "Late"), "verdict"] == "no policy there"
    assert math.isnan(comparison.loc[("1.5", "Late"), "difference"])
    for method in ("Same", "Worse", "Late"):
        assert comparison.loc[("6", method), "verdict"] == "no policy there"
    late = comparison.loc[(SHARED, "Late")]
    assert (late["from"], late["to"]) == pytest.approx((1.9, 2.0))
    assert late["difference"] == pytest.approx(0.8225 - 0.795)  # at 1.95 nats
    assert late["verdict"] == "better"


def test_seeds_that_shift_both_alike_do_not_widen_their_difference(comparison):
    """The methods' own intervals hold the seeds' ± .01; the difference, paired by seed, does not."""
    same = comparison.loc[("1.5", "Same")]
    assert same["high"] - same["low"] > 0.04
    assert same["difference_high"] - same["difference_low"] < 0.04
    assert same["probability_of_improvement"] == pytest.approx(0.5, abs=0.1)
    assert comparison.loc[("1.5", "Worse"), "probability_of_improvement"] < 0.02


def test_seeds_that_disagree_widen_it(tables):
    found = frontiers(*tables)
    apart = Frontier(
        [0, 1, 2], [r + s for r, s in zip(found["Same"].reward, (-0.05, 0.05, 0.0), strict=True)], found["Same"].kl
    )
    row = compare({"DPO": found["DPO"], "Apart": apart}, against="DPO", budgets=(1.5,)).set_index("method").loc["Apart"].iloc[0]
    assert row["verdict"] == "not resolved"
    assert row["difference_high"] - row["difference_low"] > 0.1


@pytest.mark.parametrize(("seeds", "words"), [([1], "one seed: these policies"), ([0, 2], "2 seeds: these policies")])
def test_few_seeds_give_no_verdict(tables, seeds, words):
    found = {name: frontier.of(seeds) for name, frontier in frontiers(*tables).items()}
    rows = compare(found, against="DPO", budgets=(1.5,)).set_index(["kl_budget", "method"])
    assert rows.loc[("1.5", "Worse"), "verdict"] == words
    assert rows.loc[("1.5", "Worse"), "difference_high"] < 0 or len(seeds) == 2
    assert rows.loc[("1.5", "Late"), "verdict"] == "no policy there"


def test_only_seeds_that_all_have_are_compared(tables):
    found = frontiers(*tables)
    found["Worse"] = found["Worse"].of([1, 2])
    assert set(compare(found, against="DPO", budgets=(1.5,))["seeds"]) == {2}
    alone = Frontier([7], found["Same"].reward[:1], found["Same"].kl[:1])
    rows = compare({"DPO": found["DPO"], "Same": alone}, against="DPO", budgets=(1.5,)).set_index("method")
    assert set(rows.loc["Same", "verdict"]) == {"no seed in common"}


def test_what_was_not_searched_is_not_judged(tables):
    rows = compare(frontiers(*tables), against="DPO", budgets=(1.5,), unsearched={"Worse"}).set_index(["kl_budget", "method"])
    assert rows.loc[("1.5", "Worse"), "verdict"] == "rate not searched"
    assert rows.loc[("1.5", "Worse"), "difference"] == pytest.approx(-0.175)
    assert rows.loc[("1.5", "Same"), "verdict"] == "equivalent"


def test_optimality(comparison):
    assert comparison.loc[("1.5", "DPO"), "optimality_low"] == pytest.approx(0.25 / 1.0)
    assert comparison.loc[("6", "DPO"), "optimality_low"] == pytest.approx(0.3 / 4.5)
    assert comparison.loc[("6", "DPO"), "optimality_high"] == pytest.approx(0.3 / 3.5)


def test_p_values_are_of_the_family(comparison):
    tested = comparison[comparison["p"].notna()]
    assert len(tested) == 5  # Same and Worse at 1.5 nats and over what is shared, Late over what is shared
    for row in tested.to_dict("records"):
        assert (row["p"] < 0.05) == (row["difference_low"] > 0 or row["difference_high"] < 0)


def test_the_table_for_reading(comparison):
    page = matched_kl_table(comparison.reset_index())
    assert "| equivalent " in page
    assert "| no policy there " in page
    assert "25%" in page
    assert "7%–9%" in page
    assert "| shared, 1.9–2.0 " in page


def test_where_nothing_is_resolved_the_table_says_what_would_show(tables):
    found = frontiers(*tables)
    noise = np.random.default_rng(1).normal(0, 0.3, 200)
    unsure = Frontier([0, 1, 2], [r + (noise - noise.mean()) * [[0], [1], [1]] for r in found["Same"].reward], found["Same"].kl)
    page = matched_kl_table(compare({"DPO": found["DPO"], "Unsure": unsure}, against="DPO", budgets=(1.5,)))
    assert "not resolved (a gap of 0." in page
    assert "would show)" in page
    assert "tied" not in page


def test_lines_for_a_figure_are_where_every_seed_has_policies(tables):
    empty = pd.DataFrame()
    lines = lines_of(Results({}, tables[1], tables[0], empty, empty))
    dpo = lines[(lines["method"] == "DPO") & (lines["metric"] == "reward")]
    assert (dpo["kl"].min(), dpo["kl"].max()) == pytest.approx((1.0, 2.0))
    assert dpo["value"].iloc[-1] == pytest.approx(0.80)
    assert set(lines["metric"]) == {"reward"}  # no log-odds were measured


def test_no_policies_no_comparison():
    assert compare({}, against="DPO").empty
