"""What was lost, cut or edited in a runs folder is named and made again; nothing of it is used in silence."""

import errno
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from suite.common.errors import UserError
from suite.common.files import remove
from suite.engine.lease import is_lease
from suite.engine.making import run_one
from suite.engine.manifest import done, flaw
from suite.engine.store import Damaged, RunSpec, open_run, reading, status
from suite.engine.sweep import run_sweep

CALLS = []
STOPS = []
"""Steps at which a user stops the run, once each."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("suite.common.files.os.fsync", lambda handle: None)


class Policy:
    def __init__(self, word="weights"):
        self.word = word

    def save(self, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_text(self.word)


def make(run):
    """A stage that leaves what stages leave: a table, counts, logged steps and two snapshots."""
    CALLS.append(run.spec.title)
    state = run.load_checkpoint()
    for step in range(state["step"] + 1 if state else 1, 5):
        run.log(step, {"loss": 1 / step})
        if step % 2 == 0:
            run.snapshot(Policy(f"weights of {step}"), step)
        if step == 3:
            run.save_checkpoint(step, {"x": torch.ones(3)})
        if step in STOPS:
            STOPS.remove(step)
            raise KeyboardInterrupt
    run.write_table("samples.parquet", pd.DataFrame({"a": range(100)}))
    (run.directory / "counts.json").write_text(json.dumps({"used": 12}))


def after(run):
    """A stage that reads the one before it."""
    frame = pd.read_parquet(run.input("first") / "samples.parquet")
    run.write_table("sum.parquet", pd.DataFrame({"sum": [frame["a"].sum()]}))


def first():
    return RunSpec("first", {}, code="c", title="the first", function=f"{__name__}:make")


def second():
    return RunSpec("second", {}, {"first": first()}, code="c", title="the second", function=f"{__name__}:after")


def start(root, *targets, workers=1):
    CALLS.clear()
    return {o.spec.title: o.status for o in run_sweep(root, targets or [second()], workers=workers)}


def contents(folder):
    """Bytes of every file that counts."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "DONE" and not is_lease(path.name)
    }


def edited(name, old, new):
    def damage(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return damage


def cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def gone(name):
    return lambda folder: remove(folder / name)


def other(name, make_other):
    def damage(folder):
        remove(folder / name)
        make_other(folder / name)

    return damage


def a_file(path):
    path.write_text("a file")


def a_link_to_nothing(path):
    path.symlink_to(path.parent / "nothing")


def garbage(path):
    path.write_bytes(b"\xff\xfe{garbage")


def decayed_weights(folder):
    """Other numbers of the same size, in a file that can be read."""
    path, ones = folder / "checkpoint.pt", torch.ones(3).numpy().tobytes()
    assert path.read_bytes().count(ones) == 1
    path.write_bytes(path.read_bytes().replace(ones, torch.full((3,), 2.0).numpy().tobytes()))


SAMPLES, SNAPSHOT = "samples.parquet", "snapshots/step-000004/model.safetensors"
DAMAGES = {
    "table gone": (gone(SAMPLES), "samples.parquet is missing"),
    "table cut": (cut(SAMPLES, 10), r"samples.parquet has 10 of [\d,]+ bytes"),
    "table empty": (cut(SAMPLES, 0), "samples.parquet has 0 of"),
    "table a folder": (other(SAMPLES, Path.mkdir), "samples.parquet is no file"),
    "table a dangling link": (other(SAMPLES, a_link_to_nothing), "samples.parquet is missing"),
    "counts gone": (gone("counts.json"), "counts.json is missing"),
    "counts empty": (cut("counts.json", 0), "counts.json has 0 of"),
    "counts edited, as long as before": (edited("counts.json", "12", "13"), "counts.json was changed"),
    "weights cut": (cut(SNAPSHOT, 4), f"{SNAPSHOT} has 4 of 12 bytes"),
    "weights of another": (edited(SNAPSHOT, "of 4", "of 5"), f"{SNAPSHOT} was changed"),
    "policy class edited": (
        edited("snapshots/step-000002/policy_class", "Policy", "Mypcls"),
        "snapshots/step-000002/policy_class was changed",
    ),
    "one snapshot gone": (gone("snapshots/step-000002"), "snapshots/step-000002/.* is missing"),
    "snapshots gone": (gone("snapshots"), "snapshots/.* is missing"),
    "snapshots a file": (other("snapshots", a_file), "snapshots/.* is missing"),
    "metrics gone": (gone("metrics.jsonl"), "metrics.jsonl is missing"),
    "metrics torn": (cut("metrics.jsonl", 30), "metrics.jsonl has 30 of"),
    "metrics edited": (edited("metrics.jsonl", "0.25", "0.75"), "metrics.jsonl was changed"),
    "DONE empty": (cut("DONE", 0), "DONE cannot be read"),
    "DONE cut": (cut("DONE", 100), "DONE cannot be read"),
    "DONE garbage": (other("DONE", garbage), "DONE cannot be read"),
    "DONE a list": (other("DONE", lambda path: path.write_text("[]")), "DONE cannot be read"),
    "DONE edited": (edited("DONE", '"seconds": ', '"seconds": 9'), "DONE was changed"),
    "DONE a folder": (other("DONE", Path.mkdir), "DONE cannot be read"),
    "DONE a dangling link": (other("DONE", a_link_to_nothing), "DONE cannot be read"),
    "spec empty": (cut("spec.json", 0), "spec.json cannot be read"),
    "spec gone": (gone("spec.json"), "spec.json cannot be read"),
    "spec of another run": (edited("spec.json", first().key, "0" * 64), "spec.json is of another run"),
    "spec edited": (edited("spec.json", '"code": "c"', '"code": "d"'), "spec.json was changed"),
    "the run a file": (lambda folder: other(folder.name, a_file)(folder.parent), "is no folder"),
    "the run a dangling link": (lambda folder: other(folder.name, a_link_to_nothing)(folder.parent), "is no folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_named_and_made_again(tmp_path, capsys, name):
    damage, words = DAMAGES[name]
    assert set(start(tmp_path).values()) == {"done"}
    folder, whole = first().directory(tmp_path), contents(first().directory(tmp_path))
    damage(folder)
    assert status(tmp_path, first()) == "damaged"
    assert not done(folder)
    assert start(tmp_path) == {"the second": "cached", "the first": "done"}
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{re.escape(str(folder))}: ({words}).*; the run is made again", line), line
    assert contents(folder) == whole
    assert set(start(tmp_path).values()) == {"cached"}
    assert not CALLS


HARMLESS = {
    "lease gone": gone("lease-1.json"),
    "lease garbage": other("lease-1.json", garbage),
    "a lock of an older version": lambda folder: (folder / "lock").write_text("1234"),
    "an error of before": lambda folder: (folder / "error.log").write_text("Traceback"),
    "notes of the user": lambda folder: (folder / "notes.txt").write_text("good"),
    "copied, with another date": lambda folder: os.utime(folder / SAMPLES),
    "DONE of an older version, without hashes": lambda folder: (folder / "DONE").write_text('{"seconds": 1}'),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_not_damaged_is_not_made_again(tmp_path, capsys, name):
    start(tmp_path)
    HARMLESS[name](first().directory(tmp_path))
    assert set(start(tmp_path).values()) == {"cached"}
    assert not CALLS
    assert not capsys.readouterr().err


def test_a_copied_file_is_read_once_and_has_its_date_again(tmp_path, monkeypatch):
    start(tmp_path)
    folder = first().directory(tmp_path)
    os.utime(folder / SAMPLES)
    assert done(folder)
    monkeypatch.setattr("suite.engine.manifest._sha256", None)  # asked again it would fail
    assert done(folder)


UNDONE = {
    "spec empty": (cut("spec.json", 0), "spec.json cannot be read"),
    "spec garbage": (other("spec.json", garbage), "spec.json cannot be read"),
    "lease a folder": (other("lease-1.json", Path.mkdir), None),
    "lease a dangling link": (other("lease-1.json", a_link_to_nothing), None),
    "snapshots a file": (other("snapshots", a_file), "snapshot that was there is gone"),
    "a snapshot gone": (gone("snapshots/step-000002"), "snapshot that was there is gone"),
    "metrics gone": (gone("metrics.jsonl"), "metrics.jsonl was changed"),
    "metrics torn": (cut("metrics.jsonl", 20), "metrics.jsonl was changed"),
    "metrics edited": (edited("metrics.jsonl", "0.5", "0.7"), "metrics.jsonl was changed"),
    "table a folder": (lambda folder: (folder / SAMPLES).mkdir(), None),
    "checkpoint empty": (cut("checkpoint.pt", 0), "not a zip file"),
    "checkpoint cut": (cut("checkpoint.pt", 700), "not a zip file"),
    "checkpoint garbage": (other("checkpoint.pt", garbage), "not a zip file"),
    "checkpoint decayed": (decayed_weights, "was changed"),
    "checkpoint a folder": (other("checkpoint.pt", Path.mkdir), "directory"),
    "checkpoint a dangling link": (other("checkpoint.pt", a_link_to_nothing), "No such file"),
    "checkpoint of something else": (other("checkpoint.pt", lambda path: torch.save([1, 2], path)), "of another run"),
    "checkpoint of another run": (
        other("checkpoint.pt", lambda path: torch.save({"run": "0" * 64, "step": 3, "seconds": 0.0}, path)), "of another run"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDONE)
def test_a_damaged_run_that_was_stopped_starts_over(tmp_path, capsys, name):
    damage, words = UNDONE[name]
    start(tmp_path / "whole")
    folder = first().directory(tmp_path / "broken")
    STOPS.append(4)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "broken")
    assert status(tmp_path / "broken", first()) == "resumes"
    damage(folder)
    assert set(start(tmp_path / "broken").values()) == {"done"}
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == (words is not None)
    assert words is None or (str(folder) in errors[0] and words in errors[0])
    left = contents(folder)
    left.pop("checkpoint.pt.unreadable", None)
    assert left == contents(first().directory(tmp_path / "whole"))
    assert set(start(tmp_path / "broken").values()) == {"cached"}


def test_a_spec_of_another_run_is_refused_before_the_run_is_done(tmp_path):
    STOPS.append(4)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    path = first().directory(tmp_path) / "spec.json"
    path.write_text(path.read_text().replace('"code": "c"', '"code": "d"'))
    with pytest.raises(UserError, match=r"spec\.json: does not match the run"):
        start(tmp_path)


@pytest.mark.parametrize("damage", [cut("spec.json", 0), other("spec.json", garbage), gone("spec.json")])
def test_another_runs_damaged_spec_stops_nothing(tmp_path, damage):
    other_run = RunSpec("first", {"seed": 1}, code="c", title="another", function=f"{__name__}:make")
    start(tmp_path, other_run)
    damage(other_run.directory(tmp_path))
    assert status(tmp_path, first()) == "to run"
    assert set(start(tmp_path).values()) == {"done"}


@pytest.mark.parametrize("name", ["first", "damaged"])
def test_a_file_where_a_folder_of_runs_belongs_is_named(tmp_path, name):
    start(tmp_path)
    cut(SAMPLES, 0)(first().directory(tmp_path))
    remove(tmp_path / name)
    a_file(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: a file stands where a folder of runs belongs"):
        start(tmp_path)


def test_what_was_damaged_is_set_aside_once(tmp_path):
    start(tmp_path)
    for text in ("one", "two"):
        (first().directory(tmp_path) / SAMPLES).write_text(text)
        start(tmp_path)
    aside = tmp_path / "damaged" / "first" / first().key[:16]
    assert (aside / SAMPLES).read_text() == "two"


def test_decay_that_no_date_shows_is_found_when_it_is_read(tmp_path):
    start(tmp_path, first())
    folder = first().directory(tmp_path)
    path, stat = folder / SAMPLES, (folder / SAMPLES).stat()
    path.write_bytes(b"?" * stat.st_size)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert done(folder)
    assert flaw(folder, every_byte=True) == "samples.parquet was changed"
    outcome = run_one(tmp_path, second())
    assert outcome.status == "failed"
    assert outcome.error == f"{folder}: samples.parquet was changed; start the same command again to make it anew"
    assert start(tmp_path) == {"the first": "done", "the second": "done"}


def test_a_fault_of_its_own_is_not_blamed_on_the_runs_that_are_read(tmp_path):
    start(tmp_path, first())
    with pytest.raises(ZeroDivisionError), reading(tmp_path, [first()]):
        _ = 1 / 0
    with pytest.raises(UserError, match="mine"), reading(tmp_path, [first()]):
        raise UserError("mine")
    assert done(first().directory(tmp_path))


def test_a_damaged_run_that_a_page_reads_is_named(tmp_path):
    start(tmp_path, first())
    gone(SAMPLES)(first().directory(tmp_path))
    with pytest.raises(Damaged, match=r"samples\.parquet is missing"), reading(tmp_path, [first()]):
        pd.read_parquet(first().directory(tmp_path) / SAMPLES)


def test_a_run_that_another_process_finished_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    start(tmp_path, first())
    before = contents(first().directory(tmp_path))
    answers = iter([False, True, True])
    monkeypatch.setattr("suite.engine.store.manifest.done", lambda directory: next(answers))
    with open_run(tmp_path, first()) as run:
        assert run.done
    assert contents(run.directory) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("name", ["spec.json", "step-000002", "checkpoint.pt", SAMPLES, "DONE"])
def test_a_disk_that_cannot_be_written_stops_the_sweep_and_the_next_start_goes_on(tmp_path, monkeypatch, name, code):
    start(tmp_path / "whole")
    replace = os.replace

    def refuse(old, new):
        if os.path.basename(new) == name:
            raise OSError(code, os.strerror(code))
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("suite.common.files.os.replace", refuse)
        with pytest.raises(OSError, match=name) as caught:
            start(tmp_path / "broken", first())
    assert caught.value.errno == code
    folder = first().directory(tmp_path / "broken")
    assert not list(folder.rglob(".*.tmp"))
    assert not (folder / "DONE").exists()
    assert start(tmp_path / "broken") == {"the first": "done", "the second": "done"}
    assert contents(folder) == contents(first().directory(tmp_path / "whole"))


def test_all_that_a_run_leaves_is_on_the_disk_before_it_counts_as_done(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("suite.common.files.os.fsync", lambda handle: steps.append(os.readlink(f"/proc/self/fd/{handle}")))
    replace = os.replace
    monkeypatch.setattr(
        "suite.common.files.os.replace",
        lambda old, new: (replace(old, new), steps.append("done") if os.path.basename(new) == "DONE" else None),
    )
    start(tmp_path, first())
    folder = first().directory(tmp_path)
    before = steps[: steps.index("done")]
    for path in (*(folder / name for name in contents(folder)), folder, folder / "snapshots", folder / "snapshots/step-000002"):
        assert str(path) in before
