"""What goes into `report.html`: numbers that come out as they went in, sentences of the one rule, the same bytes each time."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from suite.analysis.records import read_results, write_results
from suite.report.html.data import SHAPES, data_of
from suite.report.html.numbers import ABSENT, quantised, short
from suite.report.html.provenance import runs_of
from suite.report.html.verdicts import budgets_of, sentence
from suite.report.html.write import SCRIPTS, as_json, report_html

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def default():
    return read_results(RESULTS / "imdb_frontier")


@pytest.fixture(scope="module")
def data(default):
    return data_of(default, "imdb_frontier", samples=4)


def unpacked(table, columns):
    whole = np.frombuffer(base64.b64decode(table["data"]), dtype="<u2").reshape(-1, columns)
    return np.where(whole == ABSENT, np.nan, table["low"] + table["step"] * whole)


@given(some.lists(some.lists(some.floats(-1e4, 1e4) | some.just(float("nan")), min_size=3, max_size=3), min_size=1, max_size=5))
def test_quantised_numbers_come_back_to_half_a_step(rows):
    values = np.array(rows)
    table = quantised(values)
    again = unpacked(table, 3)
    assert (np.isnan(again) == np.isnan(values)).all()
    assert np.nanmax(np.abs(again - values), initial=0.0) <= 0.51 * table["step"] + 1e-9


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.123456789, 0.123457),
        (1e7 + 0.4, 1e7),
        (3.0, 3),
        (float("nan"), None),
        (float("inf"), None),
        (True, True),
        ("x", "x"),
        (None, None),
    ],
)
def test_numbers_are_short(value, written):
    assert short(value) == written
    assert type(short(value)) is type(written) or isinstance(written, float)


def test_the_page_fits_and_has_the_same_bytes_each_time(default):
    text = report_html([("imdb_frontier", default)], samples=4)
    assert text == report_html([("imdb_frontier", read_results(RESULTS / "imdb_frontier"))], samples=4)
    assert len(text.encode()) < 1.5e6
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)


def test_the_committed_page_of_the_core_study_is_made_of_its_records():
    folder = RESULTS / "imdb_frontier_core_grid"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 3e6
    found = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["studies"][0]
    records = pd.read_csv(folder / "records.csv", keep_default_na=False, na_values=[""])
    rows = records[(records["split"] == "test") & (records["metric"] == "reward")]
    value, _, _, n = found["points"]["test"]["reward"]
    assert sorted(v for v in value if v is not None) == pytest.approx(sorted(rows["value"]), rel=2e-6)
    assert n == 512
    said = [row["sentence"] for budget in found["budgets"] for row in budget["rows"]]
    assert "DPO is worse than PPO: −0.077 [−0.146, −0.009]." in said
    assert {row[0] for row in found["texts"]["rows"]} == set(range(4))


@pytest.mark.parametrize("page", sorted(RESULTS.glob("**/report.html")), ids=lambda path: path.parent.name)
def test_committed_pages_have_the_script_and_style_of_today(page):
    """After an edit: `python experiments/make_figures.py`, or `suite report` of the folder."""
    if "runs" in page.relative_to(RESULTS).parts:
        pytest.skip("no results")
    text = page.read_text(encoding="utf-8")
    source = files("suite.report.html")
    assert source.joinpath("page.css").read_text(encoding="utf-8") in text
    for name in SCRIPTS:
        assert source.joinpath(f"js/{name}.js").read_text(encoding="utf-8") in text


def test_only_policies_on_hulls_have_numbers_by_prompt(default, data):
    records = default.records
    selected = records[records["selected"].astype(bool)][["method", "setting", "seed", "step"]].drop_duplicates()
    with_texts = default.samples[["method", "setting", "seed", "step"]].drop_duplicates()
    both = pd.concat([selected, with_texts]).drop_duplicates()
    assert len(data["prompts"]["policies"]) == len(both) < len(data["policies"]["step"])
    rewards = unpacked(data["prompts"]["tables"]["reward"], len(data["prompts"]["names"]))
    value = data["points"]["test"]["reward"][0]
    for row, policy in zip(rewards, data["prompts"]["policies"], strict=True):
        assert row.mean() == pytest.approx(value[policy], abs=1e-4)


def test_texts_only_where_they_are_asked_for(default):
    without = report_html([("x", default)], samples=0)
    text = default.samples["text"].iloc[0].strip()[:40]
    assert text
    assert text not in without
    assert text in report_html([("x", default)], samples=1)
    assert data_of(default, "x")["texts"] == {"prompts": [], "rows": []}


def test_sentences_are_those_of_the_table(default):
    comparisons = pd.read_csv(RESULTS / "imdb_frontier" / "comparisons.csv")
    budgets = {budget["id"]: budget for budget in budgets_of(default)}
    for budget, rows in comparisons.groupby("kl_budget"):
        found = {row["method"]: row for row in budgets[f"kl-{budget}"]["rows"]}
        for row in rows.itertuples():
            if row.method in found and pd.notna(row.difference):
                assert found[row.method]["difference"] == pytest.approx(
                    [-row.difference, -row.difference_high, -row.difference_low], rel=1e-4
                )
    assert budgets["kl-shared"]["lead"] == "1 training seed: these policies, not these methods."
    assert not budgets["kl-shared"]["verdict"]


@pytest.mark.parametrize(
    ("word", "gap", "seeds", "said"),
    [
        ("worse", [-0.05, -0.08, -0.02], 5, "DPO is worse than PPO: −0.050 [−0.080, −0.020]."),
        ("better", [0.05, 0.02, 0.08], 3, "DPO is better than PPO: +0.050 [+0.020, +0.080]."),
        ("1 seed: these policies", [0.05, 0.02, 0.08], 1, "DPO minus PPO: +0.050 [+0.020, +0.080]."),
        ("rate not searched", [0.05, 0.02, 0.08], 5, "DPO minus PPO: +0.050 [+0.020, +0.080] (rate not searched)."),
        (
            "no policy there",
            None,
            5,
            "DPO is not compared with PPO: in some seed one of them has no policies on both sides of that KL.",
        ),
        ("the same policies", [0.0, 0.0, 0.0], 5, "DPO is no other than PPO: all numbers are the same."),
    ],
)
def test_a_comparison_in_words(word, gap, seeds, said):
    assert sentence("DPO", "PPO", word, gap, seeds) == said


@given(some.text() | some.sampled_from(["</script>", "<!--<script>", "&lt;", "\u2028", "\\u003c"]))
def test_json_in_a_script_element_is_json_and_ends_nothing(text):
    written = as_json({"text": text, text: [text]})
    assert json.loads(written) == {"text": text, text: [text]}
    assert not set(written) & set("<>&\u2028\u2029")


def test_runs_of_a_stage_say_once_what_they_share():
    run = {"stage": "policy", "title": "DPO", "code": "c", "inputs": {}, "config": {"a": 1, "b": {"c": 2}}}
    runs = {
        "k1": run,
        "k2": {**run, "config": {"a": 1, "b": {"c": 3}}},
        "m": {**run, "stage": "measurements", "inputs": {"policy": "k1"}},
    }
    records = pd.DataFrame({"run_key": ["m"], "run_seconds": [12.5]})
    policy, measured = runs_of(runs, records)
    assert policy["shared"] == [["a", "1"]]
    assert policy["runs"] == [["k1", "DPO", [["b.c", "2"]], 12.5], ["k2", "DPO", [["b.c", "3"]], None]]
    assert measured["shared"] == []


def test_a_policy_at_a_third_is_found_in_all_tables(tmp_path):
    """CSV has six digits of it, parquet all."""
    results = read_results(RESULTS / "hh_dialogue_local")

    def thirds(table):
        during = (table["panel"] == "training") & table["x"].between(0.2, 0.4)
        return table.assign(x=table["x"].mask(during, 1 / 3))

    moved = replace(results, records=thirds(results.records), measurements=thirds(results.measurements))
    assert (moved.records["x"] == 1 / 3).any()
    write_results(tmp_path, moved)
    found = data_of(read_results(tmp_path), "thirds")
    wins = unpacked(found["prompts"]["tables"]["win"], len(found["prompts"]["names"]))
    assert not np.isnan(wins).all(axis=1).any()


def test_of_two_seeds_nothing_is_said_of_methods_within_compute(default):
    """The seeds that all methods have count, not those of the study."""
    core = read_results(RESULTS / "label_noise" / "noise-0")
    few = ~((core.records["method"] == "cDPO") & (core.records["seed"] > 2))
    known = ~((core.measurements["method"] == "cDPO") & (core.measurements["seed"] > 2))
    budgets = budgets_of(replace(core, records=core.records[few], measurements=core.measurements[known]))
    compute = [budget for budget in budgets if budget["group"] == "equal compute"]
    assert compute
    assert {(budget["seeds"], budget["verdict"]) for budget in compute} == {(2, False)}


def test_replies_and_texts_of_prompts_without_numbers_stay_out(default):
    verdicts = read_results(RESULTS / "hh_dialogue_local")
    verdicts = replace(verdicts, verdicts=verdicts.verdicts.assign(reply="it quotes"))
    assert "it quotes" not in report_html([("x", verdicts)], samples=0)
    shown = data_of(verdicts, "x", samples=1)["judgments"]["columns"]["reply"]
    first = verdicts.verdicts["prompt_id"] == verdicts.verdicts["prompt_id"].iloc[0]
    assert [bool(reply) for reply in shown] == list(first)
    gone = default.samples["prompt_id"].iloc[0]
    rest = default.measurements[default.measurements["prompt_id"] != gone]
    found = data_of(replace(default, measurements=rest), "x", samples=4)
    assert found["prompts"]["names"][:3] == [prompt[0] for prompt in found["texts"]["prompts"]]


def test_a_study_without_validation_texts_training_or_runs_has_a_page(default):
    test = default.records["split"] == "test"
    bare = replace(
        default, records=default.records[test], measurements=default.measurements[default.measurements["split"] == "test"],
        training=default.training.iloc[:0], health=default.health.iloc[:0], samples=None, behind=None, ideal=None, runs={},
    )  # fmt: skip
    found = data_of(bare, "bare")
    assert found["training"]["runs"] == []
    assert found["points"]["validation"] == {}
    assert report_html([("bare", bare)])


def test_the_scale_of_the_study_is_said_at_the_top(default):
    about = default.about | {"data": default.about["data"] | {"learned from": {"rows": 999, "used": 321}}, "max_new_tokens": 17}
    [line] = re.findall(r'<p class="meta">(.*)</p>', report_html([("x", replace(default, about=about))]))
    assert "profile embedded · learned from 321 rows · at most 17 tokens · 192 test prompts · 1 training seed" in line
    older = {name: value for name, value in about.items() if name not in ("data", "max_new_tokens")}
    [line] = re.findall(r'<p class="meta">(.*)</p>', report_html([("x", replace(default, about=older))]))
    assert "profile embedded · 192 test prompts" in line


def test_students_quantile_to_a_thousandth_from_ten_prompts_on():
    if (node := shutil.which("node")) is None:
        pytest.skip("no node here, which runs the script")
    script = files("suite.report.html").joinpath("js/core.js").read_text(encoding="utf-8")
    asked = "console.log(JSON.stringify([9, 23, 191, 511].map(studentQuantile)))"
    done = subprocess.run([node, "-e", script + asked], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(stats.t.ppf(0.975, [9, 23, 191, 511]), abs=1e-3)


@pytest.mark.parametrize("name", [*SCRIPTS, "live"])
def test_scripts_are_javascript(name):
    if (node := shutil.which("node")) is None:
        pytest.skip("no node here, which checks the syntax")
    script = files("suite.report.html").joinpath(f"js/{name}.js")
    done = subprocess.run([node, "--check", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_markers_that_differ_in_the_figures_differ_in_the_page():
    assert len(set(SHAPES.values())) == len(SHAPES)
    outlines = files("suite.report.html").joinpath("js/chart.js").read_text(encoding="utf-8")
    table = outlines.split("const OUTLINES = {")[1].split("\n};")[0]
    drawn = dict(re.findall(r"^  (\w+): \(r\) => (.+),$", table, re.MULTILINE))
    assert set(SHAPES.values()) <= set(drawn)
    assert len(set(drawn.values())) == len(drawn)
