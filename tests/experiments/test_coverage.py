"""Nominal 95 % intervals hold the truth in 93 to 97 % of simulated data sets from 256 prompts on."""

from pathlib import Path

import pandas as pd
import pytest

from suite.check.coverage import CASES, simulate

COMMITTED = Path(__file__).parents[2] / "results" / "statistics" / "coverage.csv"
SOUND = [name for name in CASES if "2 seeds" not in name and "3 seeds" not in name and name != "over 5 seeds, t"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_coverage_from_256_prompts_on(name):
    found = simulate(CASES[name], 256, 3000)
    assert 0.93 <= found["coverage"] <= 0.97, found


def test_a_wrong_interval_is_found_out():
    """Half as wide as it should be, it holds the truth in two thirds of the cases: the simulation must show it."""

    def too_narrow(rng, n):
        interval, truth = CASES["win rate, Wilson"](rng, n)
        quarter = (interval.high - interval.low) / 4
        return interval._replace(low=interval.mean - quarter, high=interval.mean + quarter), truth

    assert simulate(too_narrow, 256, 300)["high"] < 0.8
    assert simulate(CASES["win rate, Wilson"], 256, 300)["high"] > 0.93


def test_the_committed_table_has_every_case():
    table = pd.read_csv(COMMITTED)
    assert set(table["case"]) == set(CASES)
    sound = table[table["case"].isin(SOUND) & (table["n"] >= 256)]
    assert ((sound["low"] <= 0.97) & (sound["high"] >= 0.93)).all()  # a few hundred replications each
