"""The noise experiment grows seed by seed: what is recorded is not run again, and the table is that of one sitting."""

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
