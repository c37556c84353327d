"""Workers that anybody starts make a plan together: nothing twice, whoever is killed, and what fails is told once."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from waiting_stages import log, of, settle, wait_for

from suite.common.errors import UserError
from suite.engine.engines import Means
from suite.engine.making import closure
from suite.engine.pull_workers import OneOfMany, PullWorkers
from suite.engine.sweep import run_sweep


@pytest.fixture
def place(tmp_path, monkeypatch):
    return settle(tmp_path, monkeypatch)


def start(plan):
    """A worker, as a scheduler would start it."""
    program = [sys.executable, "-m", "suite.cli.main", "work", str(plan), "--threads", "1"]
    return subprocess.Popen(program, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_workers_and_one_that_is_killed_make_every_run_once(place):
    root = place / "runs"
    first = [of(f"first {k}", waits=True) for k in range(2)]
    second = [of(f"second {k}", *first) for k in range(6)]
    last = of("last", *second)
    engine, found = PullWorkers(root, [last]), []
    waiting = threading.Thread(target=lambda: found.extend(run_sweep(root, [last], engine=engine)))
    waiting.start()
    workers = [start(engine.plan) for _ in range(2)]
    try:
        wait_for(lambda: len(log(root)) == 2)  # each holds one of the first
        assert {title for title, _, _ in log(root)} == {"first 0", "first 1"}
        (killed,) = (title for title, _, pid in log(root) if int(pid) == workers[0].pid)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        (root / "go").write_text("")
        out, err = workers[1].communicate(timeout=240)
    finally:
        for worker in workers:
            worker.kill()
    waiting.join(timeout=240)
    assert not waiting.is_alive()
    assert {o.spec.title: o.status for o in found} == {spec.title: "done" for spec in closure([last])}
    begun = Counter(title for title, _, _ in log(root))
    assert begun.pop(killed) == 2
    assert set(begun.values()) == {1}
    assert workers[1].returncode == 0, err
    assert f"{engine.plan.name}: 9 done\n" in out
    for spec in closure([last]):
        assert (spec.directory(root) / "result").read_text() == spec.title


def test_a_worker_that_is_told_to_stop_gives_back_what_it_holds(place):
    root, spec = place / "runs", of("waits", waits=True)
    worker = start(PullWorkers(root, [spec]).plan)
    try:
        wait_for(lambda: log(root))
        worker.terminate()
        worker.communicate(timeout=240)
    finally:
        worker.kill()
    assert worker.returncode not in (0, 1)
    (lease,) = spec.directory(root).glob("lease-*.json")
    assert lease.read_text() == '{"given_back": true}'


def test_what_failed_is_tried_by_nobody_else_until_the_next_start(place, capsys):
    root = place / "runs"
    targets = [of("after", of("bad", function="fail")), of("good")]
    for starts in (1, 2):
        engine = PullWorkers(root, targets)
        for _ in range(2):
            outcomes = list(run_sweep(root, targets, engine=OneOfMany(root, engine.plan)))
            found = {o.spec.title: (o.status, o.error.partition(" (log")[0]) for o in outcomes}
            assert found["bad"] == ("failed", "ValueError: seven")
            assert found["after"] == ("skipped", "needs bad, which failed")
            assert found["good"][0] in ("done", "cached")
        assert [title for title, _, _ in log(root)].count("bad") == starts
        driver = {o.spec.title: o.status for o in run_sweep(root, targets, engine=engine)}
        assert driver == {"bad": "failed", "after": "skipped", "good": "cached"}


def test_bad_input_ends_all_who_work_on_the_plan(place):
    root, target = place / "runs", of("bad", function="refuse")
    engine = PullWorkers(root, [target])
    for engine_of in (OneOfMany(root, engine.plan), OneOfMany(root, engine.plan), engine):
        with pytest.raises(UserError, match="row 7: no prompt"):
            list(run_sweep(root, [target], engine=engine_of))
    assert len(log(root)) == 1


def test_the_waiting_side_says_how_workers_are_started(place, capsys):
    root = place / "runs"
    target = of("one")
    engine = Means(engine="workers").open(root, [target])
    assert isinstance(engine, PullWorkers)
    list(run_sweep(root, [target], engine=OneOfMany(root, engine.plan)))
    again = of("two", of("one"))
    engine = Means(engine="workers").open(root, [again])
    list(run_sweep(root, [again], engine=OneOfMany(root, engine.plan)))
    assert engine.plan.parent == root / "plans"
    with engine:
        assert f"suite work {os.path.relpath(engine.plan, place)}" in capsys.readouterr().err.replace(f"{place}/", "")
