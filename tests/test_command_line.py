"""Bad input: one clear line on stderr, exit code 2, no traceback."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
import run_imdb_frontier
import search_learning_rates

from suite.errors import UserError, one_line_errors
from suite.registry import load_method

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def call(main, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, arguments, words):
    code, _, err = call(run_imdb_frontier.main, monkeypatch, capsys, *arguments, "--runs", tmp_path, "--dry-run")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--rates", "abc"], "--rates 'abc'"), (["--methods", "best_of_n"], "cannot be searched")]
)
def test_the_searchs_bad_input_is_one_line_too(monkeypatch, capsys, tmp_path, arguments, word):
    code, _, err = call(search_learning_rates.main, monkeypatch, capsys, *arguments, "--runs", tmp_path)
    assert code == 2
    assert err.startswith("error: ")
    assert word in err


def test_a_missing_data_set_is_one_line(monkeypatch, capsys, tmp_path):
    places = ["--runs", tmp_path / "runs", "--out", tmp_path / "out", "--workers", "1"]
    code, _, err = call(
        run_imdb_frontier.main, monkeypatch, capsys, "--profile", "smoke", "--reviews", "nobody/nothing", *places
    )
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert "nobody/nothing" in lines[0]
    assert "save_to_disk" in lines[0]


def test_a_place_that_cannot_be_written_is_found_before_the_work(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call(
        run_imdb_frontier.main,
        monkeypatch,
        capsys,
        "--profile",
        "smoke",
        "--runs",
        tmp_path / "r",
        "--out",
        tmp_path / "file" / "out",
    )
    assert code == 2
    assert "cannot be written" in err
    assert not list((tmp_path / "r").iterdir())


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


@pytest.mark.parametrize("main", [run_imdb_frontier.main, search_learning_rates.main])
def test_help_has_examples(monkeypatch, capsys, main):
    code, out, _ = call(main, monkeypatch, capsys, "--help")
    assert code == 0
    assert "examples:" in out.lower()
    assert "--dry-run" in out


def test_dry_run_lists_every_run_and_makes_none(monkeypatch, capsys, tmp_path):
    code, out, _ = call(run_imdb_frontier.main, monkeypatch, capsys, "--runs", tmp_path / "runs", "--dry-run")
    assert code == 0
    assert out.count("to run") > 25
    for title in ("DPO beta = 0.1 seed 0", "Unlikelihood alpha = 0.5 seed 0, snapshot 4", "Preferred-FT", "pool 160–191"):
        assert title in out
    assert not (tmp_path / "runs").exists()


def test_the_paper_grid_has_the_papers_runs():
    grid = run_imdb_frontier.GRIDS["paper"]
    assert [s["beta"] for s in grid["dpo"]] == [0.05, 0.1, 1.0, 5.0]
    assert [s["alpha"] for s in grid["unlikelihood"]] == [0.05, 0.1, 0.5, 1.0]


def test_the_learning_rates_are_those_of_the_committed_search():
    import json

    chosen = json.loads((run_imdb_frontier.RESULTS / "learning_rates" / "chosen.json").read_text())
    theirs = {"trl_dpo": chosen["dpo"], "trl_sft": chosen["preferred_ft"]}  # not searched: to be compared with ours
    assert {**chosen, **theirs} == run_imdb_frontier.LEARNING_RATES


def test_every_grid_and_profile_has_a_folder_of_its_own():
    folders = {run_imdb_frontier.results_folder(g, p) for g in run_imdb_frontier.GRIDS for p in run_imdb_frontier.profiles()}
    assert len(folders) == len(run_imdb_frontier.GRIDS) * len(run_imdb_frontier.profiles())
    assert run_imdb_frontier.results_folder("default", "embedded").name == "imdb_frontier"


def test_every_setting_of_every_grid_can_be_planned():
    from suite.runs.plan import plan_study

    for name, grid in run_imdb_frontier.GRIDS.items():
        plan = plan_study(run_imdb_frontier.profiles()["smoke"], grid, [0])
        assert len(plan.trained) + len(plan.pool_settings) == sum(map(len, grid.values())), name


def test_a_variant_is_found_by_name_in_any_grid():
    grid = run_imdb_frontier.chosen_grid(run_imdb_frontier.Arguments(methods="dpo,ipo_sum,sft"))
    assert grid == {
        "dpo": run_imdb_frontier.GRIDS["default"]["dpo"],
        "ipo_sum": run_imdb_frontier.GRIDS["variants"]["ipo_sum"],
        "sft": [{}],
    }


HOSTILE = "from pathlib import Path; Path('RAN').touch()"


@pytest.mark.parametrize(
    "command",
    [["-m", "suite.cli", "check-method", "no_such_method"], ["EXPERIMENTS/compare_method.py", "--method", "no_such_method"]],
)
def test_code_beside_downloaded_data_does_not_run(command, tmp_path):
    """Modules of the current folder stand behind installed ones, and are not looked at without a name of one's own."""
    for name in ("jinja2", "datasets", "peft", "evaluate", "tabulate"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    words = [word.replace("EXPERIMENTS", str(EXPERIMENTS)) for word in command]
    safe = {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(EXPERIMENTS),
    }  # `python -m` itself would put the folder first
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=safe, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "unknown method" in done.stderr
    assert not (tmp_path / "RAN").exists()


def test_a_method_of_the_current_folder_is_found_behind_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "mine_alone.py").write_text("from suite.training.dpo import DPO as Mine\n")
    (tmp_path / "tabulate.py").write_text(HOSTILE)
    assert load_method("mine_alone:Mine").name == "DPO"
    assert sys.path[-1] == ""
    importlib.reload(sys.modules["tabulate"])
    assert not (tmp_path / "RAN").exists()
