"""What a sweep believes of the time it has left, by hand, and how it shows it."""

import pytest

from suite.engine import clock as clock_module
from suite.engine import progress, speed
from suite.engine.clock import Clock
from suite.engine.engines import Means
from suite.engine.store import RunSpec
from suite.engine.sweep import print_plan, run_sweep
from suite.engine.workload import Speed, Workload, assumed_speed

SPEED = Speed(drawn=10.0, scored=40.0, trained=5.0, rewarded=80.0, start=0.5)


def spec(name, seconds, *needs, **work):
    """A run of so many seconds at a speed of 5 trained tokens a second."""
    work = {"prompt": 2, "new": 3, "trained": seconds, **work}
    return RunSpec("stage", {"name": name}, {need.title: need for need in needs}, title=name, work=Workload(**work))


@pytest.fixture
def now(monkeypatch):
    """A clock on the wall that is set by hand."""
    time = [0.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: time[0])
    return time


def test_seconds_by_hand():
    work = Workload(prompt=2, new=3, drawn=10, scored=16, trained=2, rewarded=8, models=2)
    assert SPEED.seconds(work) == 0.5 + 5 * (1.0 + 0.4 + 0.4 + 0.1)
    assert SPEED.seconds(Workload()) == 0  # nothing is loaded to join tables
    assert assumed_speed(1e6, on_gpu=False) == Speed(7500, 15000, 5000, 15000)
    assert speed.mean([SPEED, Speed(20.0, 60.0, 15.0, 80.0)]) == Speed(15.0, 50.0, 10.0, 80.0)


def test_what_most_work_waits_for_goes_first():
    first, second = spec("first", 1), spec("second", 5)
    after = spec("after", 10, first)
    last = spec("last", 20, after, second)
    clock = Clock([first, second, after, last], workers=2)
    clock.measured([SPEED])
    assert [clock.chain(s) for s in (first, second, after, last)] == [31, 25, 30, 20]


def test_time_left_by_hand(now):
    first, second, after = spec("first", 40), spec("second", 20), spec("after", 30)
    clock = Clock([first, second, after], workers=2)
    clock.measured([SPEED])
    assert clock.left == 45  # 90 seconds of work for two
    clock.start(first), clock.start(second)
    now[0] = 10.0
    assert clock.left == pytest.approx((30 + 10 + 30) / 2)
    now[0] = 40.0  # the second took twice as long as was said: so will the others, as far as that is known
    clock.end(second, "done")
    clock.start(after)
    slower = (40 + clock_module.TRUSTED) / (20 + clock_module.TRUSTED)
    assert clock.left == pytest.approx(slower * 30)  # longer than half of that and of what the first has left
    assert [s.title for s in clock.running] == ["first", "after"]
    assert clock.stages == "stage 1/3"
    clock.end(first, "done"), clock.end(after, "failed")
    assert clock.left == 0


def test_the_longest_chain_is_not_shorter_with_more_workers(now):
    first = spec("first", 40)
    clock = Clock([first, spec("after", 30, first), spec("beside", 10)], workers=8)
    clock.measured([SPEED])
    assert clock.left == 70


def test_only_long_sweeps_are_measured(monkeypatch):
    monkeypatch.setattr(speed, "assumed", lambda specs: SPEED)
    short, long = spec("short", 100), spec("long", 200, models=1)
    assert Clock([short], workers=2).worth_measuring is None
    assert Clock([short, long], workers=2).worth_measuring is long


def test_measured_speed_is_that_of_the_model_that_is_named(tmp_path, gpt2):
    gpt2.save(tmp_path / "model")
    run = RunSpec(
        "stage", {}, where={"model": str(tmp_path / "model")}, work=Workload(prompt=2, new=3, trained=5, models=1, batch=4)
    )
    found = speed.measured(run)
    assert found != speed.assumed([run])
    assert min(found.drawn, found.scored, found.trained, found.rewarded) > 0
    elsewhere = RunSpec("stage", {}, where={"model": str(tmp_path / "nothing")}, work=run.work)
    assert speed.measured(elsewhere) == speed.assumed([elsewhere])  # the run will say what is wrong


def test_without_a_terminal_a_line_a_minute(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 1e-9)
    made = RunSpec("data", {"name": "one"}, title="one", function="builtins:str")
    assert [o.status for o in run_sweep(tmp_path, [made], workers=1)] == ["done"]
    assert capsys.readouterr().err == "00:00 gone, 00:00 left, 0 of 1 runs done; now one\n"


def test_the_whole_plan_only_when_asked_for(tmp_path, capsys):
    plan = [spec("one", 1), spec("two", 2)]
    print_plan(tmp_path, plan, Means(2), whole=False)
    assert capsys.readouterr().out.splitlines() == [
        f"2 runs: 2 to run ({tmp_path})",
        "2 at a time fit into the memory that is free here",
    ]
    print_plan(tmp_path, plan, Means(2), whole=True)
    shown = capsys.readouterr().out
    assert [row.split()[1] for row in shown.splitlines()[2:4]] == ["one", "two"]
