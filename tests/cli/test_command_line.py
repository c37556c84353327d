"""Bad input: one clear line on stderr, exit code 2, no traceback."""

import errno
import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from suite.cli.main import main
from suite.common.errors import UserError, one_line_errors
from suite.common.registry import describe, load
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.study.plan import REFERENCE, plan_study
from suite.study.profiles import (
    ASSETS,
    EMBEDDED,
    GRIDS,
    LEARNING_RATES,
    SEARCHED_RATES,
    SEARCHED_SETTINGS,
    chosen_grid,
    sentiment_study,
)
from suite.study.study import method_config

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
FRONTIER, SEARCH = EXPERIMENTS / "run_imdb_frontier.py", EXPERIMENTS / "search_learning_rates.py"
BAD = [
    (["--profile", "smok"], ["'smok'", "did you mean 'smoke'"]),
    (["--methods", "dpoo"], ["'dpoo'", "did you mean 'dpo'"]),
    (["--methods", "os.path:join"], ["os.path:join", "has no 'name'"]),
    (["--methods", ":X"], ["':X'", "cannot be loaded"]),
    (["--methods", "sft"], ["'sft'", "needs texts"]),
    (["--seeds", "99999999999999999999"], ["2147483647"]),
    (["--workers", "-1"], ["--workers -1"]),
    (["--device", "foo"], ["'foo'", "cannot be used"]),
    (["--methods", "nowhere.kto:KTO"], ["nowhere.kto:KTO", "cannot be loaded"]),
    (["--seeds", "one"], ["--seeds 'one'", "0,1,2"]),
    (["--seeds", "-1"], ["--seeds '-1'", "from 0"]),
    (["--seeds", "1,1"], ["different"]),
    (["--reference", "./no/such/folder"], ["'./no/such/folder'", "does not exist"]),
    (["--gold-reward", "nobody/no-model"], ["nobody/no-model", "hf download", "Offline?"]),
]
BAD_SEARCH = [(["--rates", "abc"], "--rates 'abc'"), (["--methods", "best_of_n"], "cannot be searched")]
NO_DATA = ["--profile", "smoke", "--reviews", "nobody/nothing", "--runs", "no_data", "--out", "out", "--workers", "1"]
NO_PLACE = ["--profile", "smoke", "--runs", "no_place", "--out", "file/out"]
DRY = ["--runs", "dry", "--dry-run"]
# every grid of every profile, with results/ where no folder can be made: the error names it
PROFILES = {"smoke": [], "embedded": [], "paper": ["--reference", EMBEDDED, "--gold-reward", str(ASSETS / "imdb-sentiment")]}
FOLDERS = [
    ["--profile", profile, "--grid", grid, "--runs", "runs", *more] for grid in GRIDS for profile, more in PROFILES.items()
]
AS_A_USER = """
import contextlib, io, json, runpy, sys

results = []
for script, *arguments in json.load(sys.stdin):
    sys.argv, out, err, code = [script, *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    results.append((code, out.getvalue(), err.getvalue()))
json.dump(results, sys.stdout)
"""
"""Runs scripts one after the other in one process, which imports torch once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("here")
    for name in ("file", "results"):
        (made / name).write_text("")
    return made


@pytest.fixture(scope="module")
def scripts(folder):
    """Exit code, stdout and stderr of a script by its path and arguments."""
    calls = [[FRONTIER, *arguments, "--runs", "bad", "--dry-run"] for arguments, _ in BAD]
    calls += [[SEARCH, *arguments, "--runs", "bad"] for arguments, _ in BAD_SEARCH]
    calls += [[FRONTIER, *arguments] for arguments in (NO_DATA, NO_PLACE, DRY, *FOLDERS)]
    calls += [[script, "--help"] for script in (FRONTIER, SEARCH)]
    calls = [list(map(str, call)) for call in calls]
    done = subprocess.run(
        [sys.executable, "-c", AS_A_USER], input=json.dumps(calls), cwd=folder, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(zip(map(tuple, calls), json.loads(done.stdout), strict=True))
    return lambda *call: found[tuple(map(str, call))]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_input_is_one_line(scripts, arguments, words):
    code, _, err = scripts(FRONTIER, *arguments, "--runs", "bad", "--dry-run")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


@pytest.mark.parametrize(("arguments", "word"), BAD_SEARCH)
def test_the_searchs_bad_input_is_one_line_too(scripts, arguments, word):
    code, _, err = scripts(SEARCH, *arguments, "--runs", "bad")
    assert code == 2
    assert err.startswith("error: ")
    assert word in err


def test_a_missing_data_set_is_one_line(scripts):
    code, _, err = scripts(FRONTIER, *NO_DATA)
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert "nobody/nothing" in lines[0]
    assert "save_to_disk" in lines[0]


def test_a_place_that_cannot_be_written_is_found_before_the_work(scripts, folder):
    code, _, err = scripts(FRONTIER, *NO_PLACE)
    assert code == 2
    assert "--out file/out: file is a file" in err
    assert not (folder / "no_place").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), ["disk full", "runs/x"]),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), ["no permission", "runs/x"]),
        (UserError("a row\nis bad"), ["error: a row is bad"]),
    ],
)
def test_faults_of_the_disk_are_one_line_too(capsys, error, words):
    @one_line_errors
    def main():
        raise error

    assert main() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words)


def test_other_faults_keep_their_traceback():
    @one_line_errors
    def main():
        raise OSError(errno.EIO, "a bug")

    with pytest.raises(OSError, match="a bug"):
        main()


@pytest.mark.parametrize("script", [FRONTIER, SEARCH])
def test_help_has_examples(scripts, script):
    code, out, _ = scripts(script, "--help")
    assert code == 0
    assert "examples:" in out.lower()
    assert "--dry-run" in out


def test_dry_run_lists_every_run_and_makes_none(scripts, folder):
    code, out, _ = scripts(FRONTIER, *DRY)
    assert code == 0
    assert out.count("to run") > 25
    for title in ("DPO beta = 0.1 seed 0", "Unlikelihood alpha = 0.5 seed 0, snapshot 4", "Preferred-FT", "pool 160–191"):
        assert title in out
    assert not (folder / "dry").exists()


def test_every_grid_and_profile_has_a_folder_of_its_own(scripts):
    found = {}
    for arguments in FOLDERS:
        code, _, err = scripts(FRONTIER, *arguments)
        assert code == 2
        found[arguments[1], arguments[3]] = err.partition(": cannot be written")[0].removeprefix("error: ")
    assert len(set(found.values())) == len(GRIDS) * len(PROFILES)
    assert found["embedded", "default"] == "results/imdb_frontier"


def test_the_paper_grid_has_the_papers_runs():
    grid = GRIDS["paper"]
    assert [s["beta"] for s in grid["dpo"]] == [0.05, 0.1, 1.0, 5.0]
    assert [s["alpha"] for s in grid["unlikelihood"]] == [0.05, 0.1, 0.5, 1.0]


def test_the_learning_rates_are_those_of_the_committed_search():
    chosen = json.loads((ROOT / "results" / "learning_rates" / "chosen.json").read_text())
    rates = {name: found["lr"] for name, found in chosen.items()}
    assert rates.pop("reward_model") == sentiment_study("embedded").reward_model.lr
    assert rates == SEARCHED_RATES
    study = sentiment_study("embedded")
    for name, found in chosen.items():
        tried = {**GRIDS["llama2"], **GRIDS["trl"], **GRIDS["variants"], **GRIDS["default"]}.get(name, [{}])[0]
        best = dict(part.split(" = ") for part in found["setting"].split(", ") if part)
        changes = {field: float(value) for field, value in best.items() if field not in tried}
        assert changes == ({} if name == "ppo_gt" else study.settings.get(name, {})), name  # it was tried at its rates only
    assert study.settings["ppo_gt"] == study.settings["ppo"]
    assert {*study.searched} == {*rates, "trl_dpo", "trl_sft"} == LEARNING_RATES.keys()


def test_longer_runs_are_longer_whatever_says_how_long():
    lengthened = runpy.run_path(str(FRONTIER))["lengthened"]
    study, grid = lengthened(
        sentiment_study("embedded"), {"dpo": [{"beta": 0.1}, {"num_epochs": 3}], "ppo": [{"beta": 0.1}]}, 4
    )
    epochs = [method_config(study, describe("dpo"), setting)["optim"]["num_epochs"] for setting in grid["dpo"]]
    assert epochs == [4 * SEARCHED_SETTINGS["dpo"]["num_epochs"], 12]
    assert method_config(study, describe("unlikelihood"), {})["optim"]["num_epochs"] == 4
    usual = method_config(sentiment_study("embedded"), describe("ppo"), {})
    assert method_config(study, describe("ppo"), grid["ppo"][0])["num_steps"] == 4 * usual["num_steps"]
    assert study.optim.num_snapshots == sentiment_study("embedded").optim.num_snapshots + 2
    with pytest.raises(UserError, match="--longer 3"):
        lengthened(study, grid, 3)


def test_every_setting_of_every_grid_can_be_planned():
    study = sentiment_study("smoke")
    for name, grid in GRIDS.items():
        plan = plan_study(study, grid, RewardKLEvaluator(), reference=Contender(REFERENCE))
        selecting = {p.contender for p in plan.points if p.contender.n > 1}
        assert len(plan.trained) + len(selecting) == sum(map(len, grid.values())), name


def test_a_variant_is_found_by_name_in_any_grid():
    grid = chosen_grid(GRIDS["default"], "dpo,ipo_sum,sft", GRIDS["trl"], GRIDS["variants"])
    assert grid == {"dpo": GRIDS["default"]["dpo"], "ipo_sum": GRIDS["variants"]["ipo_sum"], "sft": [{}]}
    assert chosen_grid(GRIDS["paper"], "") == GRIDS["paper"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["judge", "run", "--help"], 0, "--template"),
        (["judge", "--help"], 0, "export"),
        (["judge", "nope"], 2, "nope"),
        (["judge"], 2, "subcommand"),
        (["compare", "--help"], 0, "--against"),
        (["own-data", "--help"], 0, "--dry-run"),
        (["nope"], 2, "nope"),
    ],
)
def test_subcommands_are_nested(monkeypatch, capsys, arguments, code, word):
    monkeypatch.setattr(sys, "argv", ["suite", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    out, err = capsys.readouterr()
    assert word in (err if code else out)


HOSTILE = "from pathlib import Path; Path('RAN').touch()"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "suite.cli.main", "check-method", "no_such_method"],
        ["-m", "suite.cli.main", "compare", "--method", "no_such_method"],
    ],
)
def test_code_beside_downloaded_data_does_not_run(command, tmp_path):
    """Modules of the current folder stand behind installed ones, and are not looked at without a name of one's own."""
    for name in ("jinja2", "datasets", "peft", "evaluate", "tabulate"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}  # `python -m` itself would put the folder first
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=safe, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "unknown method" in done.stderr
    assert not (tmp_path / "RAN").exists()


def test_a_method_of_the_current_folder_is_found_behind_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "mine_alone.py").write_text("from suite.methods.dpo import DPO as Mine\n")
    (tmp_path / "tabulate.py").write_text(HOSTILE)
    assert load("mine_alone:Mine", "method").name == "DPO"
    assert sys.path[-1] == ""
    importlib.reload(sys.modules["tabulate"])
    assert not (tmp_path / "RAN").exists()
