"""The noise experiment grows seed by seed: what is recorded is not run again, and the table is that of one sitting."""

import re
from pathlib import Path

import pandas as pd
import pytest
from doors import through_doors

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "experiments" / "run_label_noise.py"
SMALL = ["--profile", "smoke", "--levels", "0.4", "--methods", "cdpo", "--budgets", "0.05", "--device", "cpu", "--workers", 1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def ended(place):
    def of(seeds, runs, out, *more):
        return [SCRIPT, *SMALL, "--seeds", seeds, "--runs", place / runs, "--out", place / out, "--precision", "float32", *more]

    return through_doors("run", [
        of("1", "one", "first"), of("1,2", "other", "grown", "--reuse-records", place / "first"),
        of("1,2", "one", "whole"), of("1,2", "none", "again", "--reuse-records", place / "whole"),
    ])  # fmt: skip


def test_only_the_new_seed_is_run(ended, place):
    for code, _, complaint in ended:
        assert code == 0, complaint[-2000:]
    seeds = {path.name: set() for path in (place / "other" / "policy").iterdir()}
    for name in seeds:
        text = (place / "other" / "policy" / name / "spec.json").read_text()
        seeds[name] = {seed for seed in (1, 2) if f'"seed": {seed}' in text}
    assert set(map(tuple, seeds.values())) == {(2,)}
    assert not (place / "none").exists() or not list((place / "none").glob("*/*/spec.json"))


def test_the_table_is_that_of_one_sitting(ended, place):
    grown, whole, again = (pd.read_csv(place / name / "label_noise.csv") for name in ("grown", "whole", "again"))
    pd.testing.assert_frame_equal(grown, whole)
    pd.testing.assert_frame_equal(again, whole)
    assert set(whole["noise"]) == {0.4}
    assert set(whole["seeds"]) == {2}


def test_it_has_a_page_and_can_be_watched(ended, place, tmp_path, monkeypatch):
    from suite.report.html.live import Sweep
    from suite.study.plan_file import enter_studies

    monkeypatch.chdir(tmp_path)  # reading a plan changes the folder
    page = (place / "whole" / "report.html").read_text()
    assert page.count("<article ") == 1
    assert "40% of the labels turned" in page
    assert "(report.html)" in (place / "whole" / "summary.md").read_text()
    seen = Sweep(*enter_studies(Path(re.search(r"suite watch (\S+)", ended[2][1])[1]))).look()
    (study,) = seen["studies"]
    assert study["name"] == "noise-0.4"
    assert seen["progress"]["runs"] == seen["progress"]["done"]
    assert study["points"]["test"]["reward"]
