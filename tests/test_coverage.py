"""Nominal 95 % intervals hold the truth in 93 to 97 % of simulated data sets from 256 prompts on."""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
import run_coverage

SOUND = [name for name in run_coverage.CASES if "2 seeds" not in name and "5 seeds" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_coverage_from_256_prompts_on(name):
    found = run_coverage.simulate(run_coverage.CASES[name], 256, 3000)
    assert 0.93 <= found["coverage"] <= 0.97, found


def test_a_wrong_interval_is_found_out():
    """Half as wide as it should be, it holds the truth in two thirds of the cases: the simulation must show it."""

    def too_narrow(rng, n):
        interval, truth = run_coverage.CASES["win rate, Wilson"](rng, n)
        quarter = (interval.high - interval.low) / 4
        return interval._replace(low=interval.mean - quarter, high=interval.mean + quarter), truth

    assert run_coverage.simulate(too_narrow, 256, 300)["high"] < 0.8
    assert run_coverage.simulate(run_coverage.CASES["win rate, Wilson"], 256, 300)["high"] > 0.93


def test_the_committed_table_has_every_case():
    table = pd.read_csv(run_coverage.RESULTS / "statistics" / "coverage.csv")
    assert set(table["case"]) == set(run_coverage.CASES)
    sound = table[table["case"].isin(SOUND) & (table["n"] >= 256)]
    assert ((sound["low"] <= 0.97) & (sound["high"] >= 0.93)).all()  # a few hundred replications each
