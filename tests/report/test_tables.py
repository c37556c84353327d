"""Tables and figures from made-up records: choice on validation, report on test, seeds averaged, runaways clipped."""

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot

from suite.analysis.equal_compute import compare_within, compute_budgets
from suite.analysis.equal_kl import frontiers
from suite.analysis.records import REFERENCE, on_hull, over_seeds, wide, with_reward_intervals
from suite.report.figures import reward_kl_frontier, reward_within_budget, styles_of
from suite.report.files import CHARACTERS_PER_INCH
from suite.report.samples import quoted
from suite.report.tables import (
    calibration,
    compute_table,
    controller_table,
    cost_table,
    points_table,
    reward_model_table,
)

# method, setting, seed, step, split, kl, reward
POINTS = [
    (REFERENCE, "", 0, 0, "validation", 0.0, 0.5), (REFERENCE, "", 0, 0, "test", 0.0, 0.5),
    ("DPO", "b", 0, 1, "validation", 2.0, 0.70), ("DPO", "b", 0, 1, "test", 2.0, 0.60),
    ("DPO", "b", 0, 2, "validation", 2.5, 0.65), ("DPO", "b", 0, 2, "test", 2.5, 0.90),
    ("Other", "", 0, 1, "validation", 2.0, 0.60), ("Other", "", 0, 1, "test", 2.0, 0.55),
    ("Other", "", 1, 1, "validation", 2.0, 0.80), ("Other", "", 1, 1, "test", 90.0, 0.75),
]  # fmt: skip


@pytest.fixture
def tables():
    rows, numbers = [], []
    for method, setting, seed, step, split, kl, reward in POINTS:
        point = {"method": method, "setting": setting, "seed": seed, "step": step, "split": split}
        about = {"n": 20, "privileged": False, "kl_is_bound": False, "compute": 1e6 * step}
        for metric, value in (("kl", kl), ("reward", reward)):
            rows.append({**point, "metric": metric, "value": value, "ci_low": value, "ci_high": value, **about})
            offsets = np.linspace(-0.05, 0.05, 20) if metric == "reward" else np.zeros(20)
            numbers += [
                {**point, "prompt_id": f"p{i}", "sample": 0, "metric": metric, "value": value + o}
                for i, o in enumerate(offsets)
            ]
    records = pd.DataFrame(rows)
    return records.assign(selected=on_hull(records)), pd.DataFrame(numbers)


def page_of(records, numbers, budgets):
    return compute_table(compare_within(records, numbers, budgets))


def line_of(tables, method, budget=2e6):
    return next(row for row in page_of(*tables, [budget]).splitlines() if f"| {method} " in row)


def test_the_choice_is_made_on_validation_and_reported_on_test(tables):
    line = line_of(tables, "DPO")
    assert "step 1" in line
    assert "0.600" in line
    assert "0.900" not in line


def test_seeds_that_all_have_are_compared(tables):
    records, _ = tables
    validation = over_seeds(wide(records, "validation"))
    assert validation[validation["method"] == "Other"]["reward"].tolist() == [pytest.approx(0.7)]
    line = line_of(tables, "Other")
    assert "0.550" in line  # seed 0's, which DPO has too
    assert "-0.050" in line
    assert "| one seed: these policies " in line


def test_a_budget_nobody_meets_says_so(tables):
    assert page_of(*tables, [0.5e6]).count("none within the budget") == 2


def test_compute_budgets_are_multiples_of_dpos_and_best_of_n_is_left_out(tables):
    records, numbers = tables
    assert compute_budgets(records) == [1e6, 2e6, 4e6, 8e6]  # DPO's whole run takes 2 million
    pool = records[(records["method"] == "Other") & (records["seed"] == 0)].assign(method="Best", kl_is_bound=True, compute=0.0)
    more = numbers[(numbers["method"] == "Other") & (numbers["seed"] == 0)].assign(method="Best")
    assert "Best" not in page_of(pd.concat([records, pool]), pd.concat([numbers, more]), [2e6])


@pytest.mark.parametrize("of", ["kl", "compute"])
def test_the_budget_figure_draws_what_validation_chose(tables, of):
    records, numbers = tables
    validation, test = (over_seeds(wide(records, split)) for split in ("validation", "test"))
    _, ax = pyplot.subplots()
    reward_within_budget(validation, with_reward_intervals(test, numbers), ax, of=of, reference=REFERENCE)
    drawn = {c.get_label(): c.lines[0].get_xydata() for c in ax.containers}
    assert list(drawn) == ["DPO", "Other"]
    assert drawn["DPO"].tolist() == [[2.0 if of == "kl" else 1.0, pytest.approx(0.6)]]
    pyplot.close("all")


def test_costs_are_those_of_whole_runs(tables):
    costs = {"tokens_sampled": 2000.0, "tokens_scored": 1000.0, "run_seconds": 10.0, "worker_peak_memory_mib": 500}
    records = tables[0].assign(**costs, tokens_trained=1e4 * tables[0]["step"])
    rows = {row.split("|")[1].strip(): row.split("|") for row in cost_table(records).splitlines()[2:]}
    assert list(rows) == ["DPO", "Other"]
    assert float(rows["DPO"][5]) == 20  # thousand tokens trained, of step 2
    assert float(rows["Other"][2]) == 2  # runs


def test_the_last_quarter_of_an_on_policy_run():
    steps = pd.DataFrame({"step": range(1, 9), "kl": [0, 1, 2, 9, 9, 9, 4, 6], "method": "PPO", "setting": "t", "seed": 0})
    steps = steps.assign(beta=0.1, reward=0.5, entropy=4.0, clip_fraction=0.01, explained_variance=0.2)
    table = controller_table(steps, {("PPO", "t"): 4.0})
    assert "5.00" in table
    assert "+25%" in table
    fixed = controller_table(steps, {})
    assert "5.00" in fixed
    assert "off target" not in fixed
    assert controller_table(steps.drop(columns="kl"), {}) == ""  # learns from pairs


def test_the_reward_models_calibration_by_hand():
    """Ten pairs at σ = ¾ of which 8 are right, twelve at ½ of which half are: errors .05 and 0."""
    sure, unsure = math.log(3), 0.0
    held_out = pd.DataFrame(
        {"difference": [sure] * 8 + [-sure] * 2 + [unsure] * 15, "right": [1.0] * 8 + [0.0] * 2 + [0.5] * 15,
         "gold_gap": np.linspace(0, 1, 25), "prompt_id": [f"p{i % 7}" for i in range(25)]}
    )  # fmt: skip
    table, error = calibration(held_out)
    assert table["n"].tolist() == [5] * 5
    assert (table["predicted"][:3] == 0.5).all()
    assert table["predicted"][3:].tolist() == pytest.approx([0.75, 0.75])
    assert table["observed"][3:].mean() == pytest.approx(0.8)
    # the two surest fifths hold the ten pairs in some order: 5 and 3 right, or 4 and 4
    assert error == pytest.approx(np.mean([0, 0, 0, *(table["observed"][3:] - 0.75).abs()]))
    assert error > 0.01
    assert reward_model_table(held_out).count("\n") == 5
    assert "0.620" in reward_model_table(held_out)


def test_only_frontier_points_are_on_the_hull(tables):
    chosen = tables[0][tables[0]["selected"]]
    assert set(chosen[chosen["method"] == "DPO"]["step"]) == {1}
    assert "yes" in points_table(tables[0])


def test_runaway_points_are_clipped_and_said_so(tables):
    _, ax = pyplot.subplots()
    notes = reward_kl_frontier(wide(tables[0], "test"), ax, reference=REFERENCE, lines=frontiers(*tables), max_kl=25.0)
    assert ax.get_xlim()[1] == 25.0
    assert notes == ["Other: 1 of 2 points lie beyond the axis (KL up to 90 nats)."]
    assert sorted(t.get_text() for t in ax.get_legend().get_texts()) == ["DPO", "Other", REFERENCE]
    pyplot.close("all")


def test_lines_are_the_seeds_mean_and_dashed_where_a_seed_has_no_policies(tables):
    """DPO: one policy at 2 nats, so dashed up to there. Other: 2 nats in one seed, 90 in the other: nowhere on both sides."""
    _, ax = pyplot.subplots()
    reward_kl_frontier(wide(tables[0], "test"), ax, reference=REFERENCE, lines=frontiers(*tables), max_kl=25.0)
    drawn = [(line.get_linestyle(), line.get_xydata()) for line in ax.lines if len(line.get_xydata()) == 200]
    assert {style for style, _ in drawn} == {"--"}
    ends = sorted((round(xy[0, 0], 3), round(xy[-1, 0], 3), round(xy[-1, 1], 3)) for _, xy in drawn)
    # at 25 nats: (0.55 + 0.5 + 0.25·25/90) / 2 of Other
    assert ends == [(0.0, 2.0, 0.6), (0.0, 25.0, round((0.55 + 0.5 + 0.25 * 25 / 90) / 2, 3))]
    pyplot.close("all")


def test_every_method_has_its_own_colour_and_marker():
    styles = styles_of(["DPO", "Unlikelihood", "Preferred-FT", "Best-of-N", "PPO", "PPO-GT", "KTO", "Mine"])
    assert len({colour for colour, _ in styles.values()}) == len({marker for _, marker in styles.values()}) == 8


def test_samples_cannot_break_the_page():
    assert quoted("a *b*") == r"> a \*b\*"
    assert quoted("<c>\n|d|") == "> \\<c\\>\n> \\|d\\|"
    assert quoted("") == "> "


def test_a_caption_line_fits_on_the_figure():
    figure = pyplot.figure(figsize=(7.2, 5.4))
    words = "Bars: 95 % over prompts. Lines: frontier chosen on validation prompts, drawn at test values, with 192 of them. "
    text = figure.text(0.02, 0.01, (words * 2)[: int(7.2 * CHARACTERS_PER_INCH)], fontsize=7)
    assert text.get_window_extent(figure.canvas.get_renderer()).x1 < figure.bbox.x1
    pyplot.close(figure)
