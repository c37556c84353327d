"""One process at a time makes a run, on one machine or many that share a file system, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

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
    elsewhere(tmp_path, machine=mine.machine, pid=mine.pid, started=mine.started - 100)
    with held(tmp_path) as taken:
        assert taken.deaths == 1


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


@pytest.mark.parametrize("function", [taken_over, taken_over_before_a_checkpoint])
def test_who_was_taken_over_writes_no_result(tmp_path, function):
    spec = RunSpec("stage", {}, title="run", function=f"{__name__}:{function.__name__}")
    outcome = run_one(tmp_path, spec)
    assert outcome.status == "held"
    assert "taken over by the live process 7 of node7" in outcome.error
    folder = spec.directory(tmp_path)
    assert not done(folder)
    assert not (folder / "checkpoint.pt").exists()
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
