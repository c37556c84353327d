"""What the second half of training has changed, from made-up records whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from suite.analysis.convergence import last_doubling
from suite.analysis.records import REFERENCE
from suite.report.tables import convergence_table

# method → step → (KL, reward)
CURVES = {
    "Done": {2: (1.0, 0.7), 4: (3.0, 0.8), 8: (3.5, 0.81)},
    "Moving": {2: (1.0, 0.6), 4: (3.0, 0.7), 8: (3.0, 0.9)},
    "Late": {2: (0.1, 0.5), 4: (0.2, 0.51), 8: (4.0, 0.8)},
}


@pytest.fixture(scope="module")
def tables():
    rng, records, numbers = np.random.default_rng(0), [], []
    points = [(REFERENCE, 0, 0, 0.0, 0.5)]
    points += [
        (method, seed, step, kl, reward)
        for method, curve in CURVES.items() for seed in range(3) for step, (kl, reward) in curve.items()
    ]  # fmt: skip
    for method, seed, step, kl, reward in points:
        point = {"method": method, "setting": "", "seed": seed, "step": step}
        about = {"privileged": False, "kl_is_bound": False, "compute": 0.0}
        noise = rng.normal(0, 0.01, 50)
        values = reward + noise - noise.mean()
        for metric, value, each in (("kl", kl, np.full(50, kl)), ("reward", reward, values)):
            for split in ("validation", "test"):
                row = {"split": split, "metric": metric, "value": value, "ci_low": value, "ci_high": value, "n": 50}
                records.append({**point, **about, **row})
            ids = [f"p{k}" for k in range(50)]
            numbers.append(
                pd.DataFrame({**point, "split": "test", "prompt_id": ids, "sample": 0, "metric": metric, "value": each})
            )
    return pd.DataFrame(records), pd.concat(numbers, ignore_index=True)


def test_what_has_stopped_and_what_has_not(tables):
    moved = last_doubling(*tables, budgets=(1.0, 3.0)).set_index(["method", "kl_budget"])
    done, moving = moved.loc[("Done", 3.0)], moved.loc[("Moving", 3.0)]
    assert done["difference"] == pytest.approx(0.0)
    assert done["low"] <= 0 <= done["high"]
    assert moving["difference"] == pytest.approx(0.2)
    assert moving["low"] > 0.15
    # at 1 nat the line from the reference to .9 at 3 nats passes .633, the half had .6
    assert moved.loc[("Moving", 1.0), "difference"] == pytest.approx(0.4 / 3 - 0.1)
    assert (done["reach_half"], done["reach"], done["seeds"]) == (3.0, 3.5, 3)


def test_where_the_half_had_no_policies_nothing_is_claimed(tables):
    late = last_doubling(*tables, budgets=(1.0,)).set_index("method").loc["Late"]
    assert math.isnan(late["difference"])
    assert (late["reach_half"], late["reach"]) == (pytest.approx(0.2), 4.0)
    page = convergence_table(last_doubling(*tables, budgets=(1.0,)))
    assert "| Late " in page
    assert "–" in page


def test_a_study_without_training_has_nothing_to_say(tables):
    records, numbers = (table[table["method"] == REFERENCE] for table in tables)
    assert last_doubling(records, numbers).empty
