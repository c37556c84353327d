"""A results folder is read as it was written, and one of an older layout is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from suite.analysis.records import SCHEMA, Results, chosen_policies, per_prompt, read_results, sick, wide, write_results
from suite.common.errors import UserError

POINT = {"method": "DPO", "setting": "", "seed": 0, "step": 3}
PLACE = {"panel": "frontier", "x": 0.0, "temperature": 1.0}


@pytest.fixture
def results():
    about = {"schema": SCHEMA, "seeds": [0], "evaluator": "reward_kl", "reward_maximum": 1.0}
    prompt = {**POINT, **PLACE, "split": "test", "sample": 0}
    numbers = [
        {**prompt, "prompt_id": f"p{i}", "metric": metric, "value": value + i / 8}
        for metric, value in (("reward", 0.5), ("kl", 2.0)) for i in range(3)
    ]  # fmt: skip
    record = {**POINT, **PLACE, "split": "test", "unit": "nats", "n": 3, "privileged": False, "estimator": "sample mean"}
    records = [
        {**record, "metric": metric, "value": value, "ci_low": value - 0.25, "ci_high": value + 0.25}
        for metric, value in (("reward", 0.625), ("kl", 2.125))
    ]
    health = [{**POINT, **PLACE, "tokens": 7.5, "alarms": ""}, {**POINT, "step": 6, **PLACE, "tokens": 2.0, "alarms": "short"}]
    training = pd.DataFrame([{**POINT, "step": step, "loss": 0.5} for step in (1, 2)])
    runs = {
        "drawn": {"test": "abc"},
        "precision": {"optim": "float32"},
        "runs": {"k1": {"stage": "data"}, "k2": {"stage": "sft"}},
    }
    return Results(about, *map(pd.DataFrame, (numbers, records, training, health)), runs=runs)


def test_what_is_written_is_read_again(results, tmp_path):
    ideal = pd.DataFrame({name: [0.0, 4.0] for name in ("kl", "reward", "low", "high", "effective_samples")})
    verdicts = pd.DataFrame([{"prompt_id": "p0", "winner": "a", "failure": ""}])
    whole = replace(results, ideal=ideal, verdicts=verdicts)
    write_results(tmp_path, whole)
    assert {path.name for path in tmp_path.iterdir()} == {
        "study.json", "measurements.parquet", "records.csv", "training.parquet", "health.csv", "ideal.csv", "verdicts.csv",
        "runs.json",
    }  # fmt: skip
    again = read_results(tmp_path)
    assert again.about == whole.about
    assert again.runs == whole.runs
    for name in ("measurements", "records", "training", "health", "ideal", "verdicts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name), check_dtype=False)
    assert again.ideal_frontier.at(2.0) == whole.ideal_frontier.at(2.0)
    assert again.about["seeds"] == [0]
    assert list(sick(again.health)["step"]) == [6]


def test_tables_of_another_run_in_the_same_folder_go(results, tmp_path):
    write_results(tmp_path, replace(results, verdicts=pd.DataFrame([{"prompt_id": "p0", "winner": "a"}])))
    write_results(tmp_path, results)
    assert not (tmp_path / "verdicts.csv").exists()
    assert read_results(tmp_path).verdicts is None
    assert read_results(tmp_path).ideal_frontier is None


def test_an_older_folder_is_refused_in_one_line(results, tmp_path):
    with pytest.raises(UserError, match=r"no study\.json, measurements\.parquet, records\.csv there") as nothing:
        read_results(tmp_path)
    write_results(tmp_path, results)
    (tmp_path / "study.json").write_text(json.dumps({**results.about, "schema": SCHEMA - 1}))
    with pytest.raises(UserError, match=f"schema {SCHEMA - 1}, this version reads {SCHEMA}; make these results again") as older:
        read_results(tmp_path)
    for error in (nothing, older):
        assert "\n" not in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_metrics_become_columns(results):
    (row,) = wide(results.records, "test").to_dict("records")
    assert (row["reward"], row["reward_low"], row["reward_high"], row["reward_n"]) == (0.625, 0.375, 0.875, 3)
    assert row["kl"] == 2.125
    assert wide(results.records, "validation").empty
    table = per_prompt(results.measurements)
    assert table.loc[("DPO", "", 0, 3)]["reward"].to_dict() == {"p0": 0.5, "p1": 0.625, "p2": 0.75}


def test_samples_of_a_prompt_count_by_their_mean(results):
    more = results.measurements.assign(sample=1, value=results.measurements["value"] + 1.0)
    table = per_prompt(pd.concat([results.measurements, more]))
    assert table["kl"].tolist() == [2.5, 2.625, 2.75]


def test_without_a_reference_every_policy_counts(results):
    records = pd.concat([results.records, results.records.assign(step=6, value=np.array([0.5, 1.0]))])
    assert chosen_policies(records) == {"DPO": {0: [("", 6), ("", 3)]}}  # by growing KL
