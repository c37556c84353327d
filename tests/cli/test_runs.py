"""`suite runs`: what is in a runs folder, what is damaged, what nobody needs."""

import os

import pytest
import torch

from suite.cli import runs as commands
from suite.common.errors import UserError
from suite.engine.lease import is_lease
from suite.engine.manifest import done
from suite.engine.store import RunSpec, open_run, status


def spec(k):
    return RunSpec("stage", {"k": k}, title=f"run {k}")


@pytest.fixture
def runs(tmp_path):
    """Run 0 is done, run 1 was stopped and has a checkpoint, run 2 was stopped before."""
    for k in range(3):
        with open_run(tmp_path, spec(k)) as run:
            (run.directory / "table.txt").write_text(f"table {k}")
            if k == 0:
                run.finish()
            if k == 1:
                run.save_checkpoint(1, {"x": torch.ones(1)})
    (tmp_path / "tensorboard" / "stage").mkdir(parents=True)
    return tmp_path


def decay(path):
    """Other bytes of the same size and date."""
    stat = path.stat()
    path.write_bytes(b"?" * stat.st_size)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def test_ls_says_how_every_run_stands(runs, capsys):
    (spec(2).directory(runs) / "spec.json").write_text("")
    assert commands.ls(runs) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 3
    for k, words in enumerate(("done", "stopped, has a checkpoint", "damaged: spec.json cannot be read")):
        (line,) = (line for line in lines if spec(k).key[:16] in line)
        assert words in line
        assert line.startswith("stage")
        assert (f"run {k}" in line) == (k == 0)  # the title is noted when it is done


def test_verify_finds_what_no_date_shows_and_mends_it(runs, capsys):
    assert commands.verify(runs) == 0
    assert capsys.readouterr().out == "3 runs: 0 damaged\n"
    folder = spec(0).directory(runs)
    decay(folder / "table.txt")
    assert done(folder)
    assert commands.verify(runs) == 1
    assert capsys.readouterr().out == f"{folder}: table.txt was changed\n3 runs: 1 damaged\n"
    assert done(folder)
    assert commands.verify(runs, mend=True) == 1
    assert capsys.readouterr().out.endswith("3 runs: 1 damaged, to be made again\n")
    assert status(runs, spec(0)) == "to run"
    assert commands.verify(runs) == 0


def test_runs_of_an_older_version_are_counted(runs, capsys):
    (spec(0).directory(runs) / "DONE").write_text('{"seconds": 1}')
    assert commands.verify(runs) == 0
    assert capsys.readouterr().out == "3 runs: 0 damaged; 1 of an older version, which noted no hashes\n"


def files_of(runs):
    return {path for path in runs.rglob("*") if path.is_file() and not is_lease(path.name)}


def test_gc_shows_and_removes_what_nobody_needs_and_nothing_else(runs, capsys):
    finished, resumes, stopped = (spec(k).directory(runs) for k in range(3))
    unknown, no_folder = finished.parent / ("0" * 16), finished.parent / ("1" * 16)
    unknown.mkdir()
    no_folder.symlink_to(runs / "nothing")
    needless = [
        finished / "checkpoint.pt", resumes / "checkpoint.pt.unreadable", stopped / ".table.txt.1.tmp", unknown, no_folder,
        runs / "damaged" / "stage" / ("2" * 16),
    ]  # fmt: skip
    for path in needless:
        if path not in (unknown, no_folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 500_000)
    needed = files_of(runs) - set(needless)
    for delete in (False, True):
        assert commands.gc(runs, delete=delete) == 0
        out = capsys.readouterr().out
        assert all(f" {path} " in out for path in needless)
        assert out.splitlines()[-1] == "6 found, 2.0 MB" + (": removed" if delete else "; --delete removes them")
        assert all(os.path.lexists(path) for path in needless) != delete
    assert not any(os.path.lexists(path) for path in needless)
    assert needed == files_of(runs)
    assert commands.gc(runs) == 0
    assert capsys.readouterr().out == "0 found, 0.0 MB\n"


def test_gc_leaves_what_another_process_holds(runs, capsys):
    with open_run(runs, spec(2)) as run:
        half = run.directory / ".table.txt.1.tmp"
        half.write_text("half")
        commands.gc(runs, delete=True)
        assert half.exists()
    commands.gc(runs, delete=True)
    assert not half.exists()


def test_no_folder_of_runs_is_one_line(tmp_path):
    for command in commands.COMMANDS.values():
        with pytest.raises(UserError, match="nothing: no folder of runs there"):
            command(tmp_path / "nothing")
