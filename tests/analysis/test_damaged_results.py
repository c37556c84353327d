"""A results folder that is damaged, or somebody else's, is one line that names the file, whoever reads it."""

import importlib.util
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from suite.analysis.records import read_results
from suite.analysis.reuse import read_reusable
from suite.common.errors import UserError
from suite.report.folder import redraw

ROOT = Path(__file__).parents[2]
FRONTIER = ROOT / "results" / "imdb_frontier"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FRONTIER, tmp_path / "results" / "mine", ignore=shutil.ignore_patterns("*.svg", "*.png", "*.md"))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"\xff\xfe\x00{")


def a_list(path):
    path.write_text("[1, 2]\n")


def a_folder(path):
    path.unlink()
    path.mkdir()


def other_columns(path):
    table = pd.DataFrame({"a": [1], "b": [2]})
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)


def words_for_numbers(path):
    if path.suffix == ".parquet":
        pd.read_parquet(path).assign(value="many").to_parquet(path)
    else:
        pd.read_csv(path).assign(value="many").to_csv(path, index=False)


def words_for_bounds(path):
    pd.read_csv(path).assign(ci_low="low").to_csv(path, index=False)


def fewer_policies(path):
    table = pd.read_csv(path, keep_default_na=False)
    table[table["method"] != "DPO"].to_csv(path, index=False)


CASES = [
    *(("study.json", damage) for damage in (cut, empty, garbage, a_list, a_folder)),
    *(("runs.json", damage) for damage in (cut, empty, garbage, a_list, a_folder)),
    *((f"{name}.parquet", damage) for name in ("measurements", "training") for damage in (cut, empty, other_columns, a_folder)),
    *((name, damage) for name in ("records.csv", "health.csv", "ideal.csv") for damage in (cut, empty, garbage, other_columns)),
    ("measurements.parquet", words_for_numbers), ("records.csv", words_for_numbers), ("records.csv", words_for_bounds),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_damaged_results_are_one_line_that_names_the_file(folder, name, damage):
    damage(folder / name)
    for read in (read_results, read_reusable, redraw):
        with pytest.raises(UserError) as caught:
            read(folder)
        assert str(folder / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_tables_that_are_not_of_one_study_are_told(folder):
    fewer_policies(folder / "records.csv")
    with pytest.raises(UserError, match=r"records\.csv and measurements\.parquet are of different policies"):
        read_results(folder)


def test_what_is_whole_is_read(folder):
    assert read_results(folder).about["seeds"] == [0]
    assert read_reusable(folder).runs["runs"]


@pytest.mark.parametrize(
    ("file", "path", "value", "words"),
    [
        ("study.json", ["seeds"], None, "study.json has no seeds"),
        ("study.json", ["worker_minutes"], "many", "study.json has no worker_minutes"),
        ("runs.json", ["drawn"], None, "runs.json has no drawn"),
        ("runs.json", ["runs"], [], "runs.json has no runs"),
        ("runs.json", ["drawn"], {}, "does not say all of drawn/validation"),
        ("runs.json", ["precision"], {"optim": "float32", "reward_model": "float32"}, "all of precision/sampler_dtype"),
        ("runs.json", ["runs", "0123456789abcdef"], {"stage": "data"}, "all of 0123456789abcdef"),
        ("runs.json", ["runs", "0123456789abcdef"], "a run", "all of 0123456789abcdef"),
    ],
)
def test_records_that_do_not_say_what_they_are_of_are_not_reused(folder, file, path, value, words):
    whole = json.loads((folder / file).read_text())
    part = whole
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (folder / file).write_text(json.dumps(whole))
    with pytest.raises(UserError, match=f"--reuse-records {folder}: .*{words}"):
        read_reusable(folder)


@pytest.fixture
def make_figures():
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / "experiments" / "make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_damaged_folder_does_not_keep_the_others_from_being_drawn(folder, make_figures, tmp_path, capsys):
    """Of a folder of several experiments; figures need what an older page did not note."""
    about = json.loads((folder / "study.json").read_text())
    del about["seeds"]
    (folder / "study.json").write_text(json.dumps(about))
    shutil.copytree(ROOT / "results" / "judge_simulation", folder.parent / "other")
    cut_table = shutil.copytree(ROOT / "results" / "judge_simulation", folder.parent / "cut")
    garbage(cut_table / "judges.csv")
    assert make_figures.main(make_figures.Arguments(folder.parent, tmp_path / "figures")) == 1
    out, err = capsys.readouterr()
    assert {Path(line).parent.name for line in out.splitlines()} == {"other"}
    assert sorted(line.partition(": of another")[0] for line in err.splitlines()) == [
        f"error: {cut_table}", f"error: {folder}"
    ]  # fmt: skip


def test_a_file_where_figures_are_to_go_is_told(folder, make_figures, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert make_figures.main(make_figures.Arguments(folder.parent, tmp_path / "file")) == 1
    assert "cannot be written (Not a directory)" in capsys.readouterr().err
