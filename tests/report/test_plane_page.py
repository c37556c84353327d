"""The interactive page of two rewards: what is drawn, what is compared, and which reward a method learned from."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from suite.analysis.records import read_results, write_results
from suite.report.folder import redraw
from suite.report.html.data import data_of
from suite.report.html.verdicts import budgets_of
from suite.report.html.write import report_html
from suite.report.label_noise import TABLE
from suite.report.study_folder import studies_in

RESULTS = Path(__file__).parents[2] / "results"
ONE = "PPO (one model of all pairs)"


def test_a_method_that_learned_from_another_reward_has_a_name_of_its_own(plane):
    data = data_of(plane, "plane")
    assert data["kind"] == "plane"
    assert [method["name"] for method in data["methods"]] == ["PPO", ONE, "DPO", "Preferred-FT"]
    looks = {(method["colour"], method["shape"]) for method in data["methods"]}
    assert len(looks) == 4


def test_its_figures_are_of_both_rewards_and_of_kl(plane):
    data = data_of(plane, "plane")
    drawn = [(figure["x"], figure["y"]) for figure in data["figures"]]
    assert drawn == [("helpfulness", "safety"), ("kl", "safety"), ("kl", "helpfulness")]
    assert data["rewards"] == ["safety", "helpfulness"]
    assert set(data["points"]["test"]) == {"helpfulness", "safety", "kl"}
    assert set(data["prompts"]["tables"]) == {"safety", "helpfulness", "kl"}


def test_last_policies_are_compared_in_each_reward_and_no_word_is_said_of_methods(plane):
    helpfulness, safety = budgets_of(plane)
    assert (helpfulness["label"], safety["label"]) == ("helpfulness", "safety")
    gaps = {row["method"]: row["difference"][0] for row in safety["rows"]}
    assert gaps == pytest.approx({"PPO": -0.5, ONE: 1.5, "Preferred-FT (reference)": 2.0})
    gaps = {row["method"]: row["difference"][0] for row in helpfulness["rows"]}
    assert gaps == pytest.approx({"PPO": -0.5, ONE: -1.5, "Preferred-FT (reference)": 1.0})
    value, low, high = next(row["difference"] for row in safety["rows"] if row["method"] == "PPO")
    assert low < value < high
    assert value - low == pytest.approx(high - value, rel=1e-4)
    assert not helpfulness["verdict"]
    assert helpfulness["lead"] == "Rates were not searched: these policies, not these methods."
    assert all(row["word"] == "one seed: these policies" for row in helpfulness["rows"])


def test_without_the_other_there_is_nothing_to_compare(plane):
    alone = {
        name: table[table["method"] != "DPO"] for name, table in vars(plane).items() if name in ("records", "measurements")
    }
    assert budgets_of(replace(plane, **alone)) == []


def test_the_page_is_made_from_the_folder_or_from_those_inside_it(plane, tmp_path):
    for name in ("b", "a"):
        write_results(tmp_path / "all" / name, plane)
    assert [name for name, _ in studies_in(tmp_path / "all")] == ["a", "b"]
    ((name, found),) = studies_in(tmp_path / "all" / "a")
    assert name == "a"
    assert report_html([("a", found)]) == report_html([("a", read_results(tmp_path / "all" / "b"))])


def test_an_experiment_of_several_studies_is_drawn_again_with_one_page(plane, tmp_path):
    for name in ("noise-0", "noise-0.4"):
        write_results(tmp_path / name, plane)
    shutil.copy(RESULTS / "label_noise" / TABLE, tmp_path)
    figure, page = redraw(tmp_path)
    assert (figure.name, page) == ("label_noise.svg", tmp_path / "report.html")
    assert page.read_text() == report_html([(name, read_results(tmp_path / name)) for name in ("noise-0", "noise-0.4")])
