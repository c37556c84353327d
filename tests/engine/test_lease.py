"""One process at a time makes a run, on one machine or many that share a file system, whatever happens to it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pandas as pd
import pytest

from suite.common.processes import lives, this_process
from suite.engine import lease
from suite.engine.lease import Held, held
from suite.engine.making import run_one
from suite.engine.manifest import done
from suite.engine.store import RunSpec

HOLD = """
import sys
from pathlib import Path
from suite.engine.lease import held
with held(Path({folder!r})):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(folder):
    """A process that holds a folder until it reads a line."""
    program = textwrap.dedent(HOLD.format(folder=str(folder)))
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(folder, number=1, *, silent=0.0, machine="node7 some-boot", **more):
    """The lease of a process of another machine that was last heard of `silent` seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lease-{number}.json"
    path.write_text(json.dumps({"token": "theirs", "deaths": 0, "machine": machine, "pid": 7, "started": 1.0, **more}))
    os.utime(path, (time.time() - silent,) * 2)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_another_process_holds_is_not_to_be_had_until_it_gives_it_back(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(Held, match=rf"{tmp_path}: held by the live process {process.pid}; wait for it"), held(tmp_path):
            pass
        process.communicate("go on\n")
        with held(tmp_path) as mine:
            assert (mine.number, mine.deaths) == (2, 0)
            assert names(tmp_path) == ["lease-2.json"]
    finally:
        process.kill()
        process.wait()


def test_a_killed_process_holds_nothing_and_is_counted(tmp_path):
    for deaths in (0, 1):
        process = holder(tmp_path)
        found = json.loads((tmp_path / f"lease-{deaths + 1}.json").read_text())
        assert found["deaths"] == deaths
        process.send_signal(signal.SIGKILL)
        process.wait()
    with held(tmp_path) as mine:
        assert mine.deaths == 2
    with held(tmp_path) as mine:  # given back: nothing died
        assert mine.deaths == 0


def test_a_stopped_process_of_this_machine_keeps_what_it_holds(tmp_path):
    process = holder(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        os.utime(tmp_path / "lease-1.json", (1.0, 1.0))
        with pytest.raises(Held), held(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("silent", "free"), [(0.0, False), (lease.SILENCE_S - 30, False), (lease.SILENCE_S + 30, True)])
def test_of_another_machine_silence_decides(tmp_path, silent, free):
    elsewhere(tmp_path, 3, silent=silent)
    if not free:
        with pytest.raises(Held, match="held by the live process 7 of node7"), held(tmp_path):
            pass
        assert names(tmp_path) == ["lease-3.json"]
        return
    with held(tmp_path) as mine:
        assert (mine.number, mine.deaths) == (4, 1)
        assert names(tmp_path) == ["lease-4.json"]


def test_a_number_that_another_process_has_now_is_of_a_process_that_is_gone(tmp_path):
    mine = this_process()
    for silent, free in ((0.0, False), (lease.SILENCE_S + 30, True)):  # heard of just now: somebody has set the clock
        elsewhere(tmp_path, machine=mine.machine, pid=mine.pid, started=mine.started - 100, silent=silent)
        if free:
            with held(tmp_path) as taken:
                assert taken.deaths == 1
        else:
            with pytest.raises(Held), held(tmp_path):
                pass


def test_half_a_lease_is_waited_for(tmp_path):
    elsewhere(tmp_path).write_text('{"tok')
    with pytest.raises(Held, match="the live process unknown"), held(tmp_path):
        pass
    os.utime(tmp_path / "lease-1.json", (1.0, 1.0))
    with held(tmp_path):
        pass


@pytest.mark.parametrize("before", [None, "given back", "silent"])
def test_of_many_that_try_at_once_one_holds(tmp_path, before):
    if before:
        elsewhere(tmp_path, silent=1e6 if before == "silent" else 0.0, given_back=before == "given back")
    start, stop, got, missed = threading.Barrier(16), threading.Barrier(16), [], []

    def take():
        start.wait()
        try:
            with held(tmp_path) as mine:
                got.append(mine)
                stop.wait()
        except Held:
            missed.append(1)
            stop.wait()

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(missed)) == (1, 15)


def test_who_looked_at_a_lease_that_is_no_longer_the_last_does_not_hold(tmp_path, monkeypatch):
    """Between its look and its own lease two others come: one takes the folder and gives it back, the next one holds it."""
    with held(tmp_path):
        pass
    real, stack = lease._is_free, contextlib.ExitStack()

    def slow(path, found):
        monkeypatch.setattr(lease, "_is_free", real)
        with held(tmp_path):
            pass
        stack.enter_context(held(tmp_path))
        return real(path, found) if path.exists() else True  # as one who had read it before

    monkeypatch.setattr(lease, "_is_free", slow)
    with stack:
        with pytest.raises(Held), held(tmp_path):
            pass
        assert names(tmp_path) == ["lease-3.json"]


def test_a_lease_that_vanishes_while_it_is_looked_at_is_looked_for_again(tmp_path, monkeypatch):
    elsewhere(tmp_path, silent=1e6)
    real = lease._is_free

    def vanishes(path, found):
        monkeypatch.setattr(lease, "_is_free", real)
        path.unlink()
        elsewhere(tmp_path, 2, given_back=True)
        return real(path, found)

    monkeypatch.setattr(lease, "_is_free", vanishes)
    with held(tmp_path) as mine:
        assert (mine.number, mine.deaths) == (3, 0)


@pytest.mark.parametrize(
    "text", ["[]", "7", '{"machine": null}', '{"pid": "x", "started": 1, "deaths": 0}', '{"given_back": 1}']
)
def test_a_lease_that_says_something_else_is_of_somebody(tmp_path, text):
    elsewhere(tmp_path).write_text(text)
    with pytest.raises(Held, match="the live process unknown"), held(tmp_path):
        pass


def test_progress_is_no_death(tmp_path):
    elsewhere(tmp_path, silent=1e6, deaths=3)
    with held(tmp_path) as mine:
        assert mine.deaths == 4
        assert json.loads(mine.path.read_text())["deaths"] == 4
        mine.made_progress()
        mine.check()
        assert json.loads(mine.path.read_text())["deaths"] == 0


def test_the_holder_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    with held(tmp_path) as mine:
        os.utime(mine.path, (1.0, 1.0))
        deadline = time.monotonic() + 60
        while mine.path.stat().st_mtime == 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mine.path.stat().st_mtime > 1.0


def taken_over(run):
    """A run whose machine slept: another takes it over in the middle."""
    elsewhere(run.directory, run.lease.number + 1)
    (run.directory / "result").write_text("42")


def taken_over_before_a_checkpoint(run):
    elsewhere(run.directory, run.lease.number + 1)
    run.save_checkpoint(3, {})


def taken_over_before_a_step(run):
    run.log(1, {"loss": 1.0})
    elsewhere(run.directory, run.lease.number + 1)
    run.log(2, {"loss": 1.0})  # so soon after the first nobody looks
    run._lease_seen -= lease.BEAT_S
    run.log(3, {"loss": 1.0})


def test_who_was_taken_over_logs_nothing_more(tmp_path):
    spec = RunSpec("stage", {}, title="run", function=f"{__name__}:taken_over_before_a_step")
    assert run_one(tmp_path, spec).status == "held"
    rows = [json.loads(line)["step"] for line in (spec.directory(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2]


def fails_because_it_was_taken_over(run):
    elsewhere(run.directory, run.lease.number + 1)
    raise FileNotFoundError("a temporary file that the other has tidied away")


def taken_over_before_a_table(run):
    elsewhere(run.directory, run.lease.number + 1)
    run.write_table("table.parquet", pd.DataFrame({"a": [1]}))


def taken_over_before_a_snapshot(run):
    elsewhere(run.directory, run.lease.number + 1)
    run.snapshot(None, 3)


@pytest.mark.parametrize("function", [
    taken_over, taken_over_before_a_checkpoint, taken_over_before_a_snapshot, taken_over_before_a_table,
    fails_because_it_was_taken_over,
])  # fmt: skip
def test_who_was_taken_over_writes_no_result(tmp_path, function):
    spec = RunSpec("stage", {}, title="run", function=f"{__name__}:{function.__name__}")
    outcome = run_one(tmp_path, spec)
    assert outcome.status == "held"
    assert "taken over by the live process 7 of node7" in outcome.error
    folder = spec.directory(tmp_path)
    assert not done(folder)
    assert not (folder / "checkpoint.pt").exists()
    assert not (folder / "error.log").exists()
    assert not (folder / "table.parquet").exists()
    assert json.loads((folder / "lease-2.json").read_text())["token"] == "theirs"


def test_a_run_at_which_process_after_process_died_is_given_up(tmp_path):
    spec = RunSpec("stage", {}, title="run", function=f"{__name__}:taken_over")
    folder = spec.directory(tmp_path)
    elsewhere(folder, silent=1e6, deaths=1)
    outcome = run_one(tmp_path, spec, most_deaths=2)
    assert (outcome.status, outcome.error[:29]) == ("failed", "2 processes in a row died at ")
    with held(folder) as mine:  # another start tries it again
        assert mine.deaths == 0


def test_who_lives():
    mine = this_process()
    assert lives(mine.pid, mine.started)
    assert not lives(mine.pid, mine.started - 10)
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    import psutil

    started = psutil.Process(child.pid).create_time()
    deadline = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(child.pid, started)  # it has ended, and nobody took note
    child.wait()
    assert not lives(child.pid, started)
