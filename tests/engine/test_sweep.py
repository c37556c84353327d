"""Whatever a method does to its process, the other runs go on; what another process makes is waited for."""

import errno
import os
import pickle
import subprocess
import sys
import textwrap
import time

import pytest

from suite.common.errors import UserError
from suite.engine import making, processes, sweep
from suite.engine.clock import Clock
from suite.engine.making import run_one
from suite.engine.store import RunSpec
from suite.engine.sweep import run_sweep


class DoesNotPickle(UserError):
    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")
        self.stream = lambda: None


class DoesNotPickleEither(Exception):
    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")
        self.stream = lambda: None


class FullDisk(OSError):
    def __init__(self, what, where):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), where)
        self.what = what


def fine(run):
    (run.directory / "result").write_text("42")


def exits(run):
    sys.exit(5)


def generator_exits(run):
    raise GeneratorExit


def dies(run):
    os._exit(3)


def dies_once(run):
    """As if memory were short."""
    if not (mark := run.root / "died").exists():
        mark.write_text("")
        os._exit(3)


def odd(run):
    raise DoesNotPickleEither("a fault", "a file")


def bad_input(run):
    raise DoesNotPickle("a bad row", "a file")


def fills_the_disk(run):
    raise FullDisk("a fault", "a file")


def of(function, *inputs):
    name = function.__name__
    needed = {str(k): spec for k, spec in enumerate(inputs)}
    return RunSpec("stage", {"name": name}, needed, title=name, function=f"{__name__}:{name}")


def outcomes(root, *targets, workers=1):
    return {o.spec.title: o for o in run_sweep(root, targets, workers=workers)}


@pytest.mark.parametrize(
    ("function", "words"),
    [(exits, "SystemExit: 5"), (generator_exits, "GeneratorExit"), (odd, "DoesNotPickleEither: a fault in a file")],
)
def test_whatever_a_method_raises_is_an_outcome_that_any_process_reads(tmp_path, function, words):
    bad = of(function)
    after = RunSpec("after", {}, {"bad": bad}, title="after", function=f"{__name__}:fine")
    found = outcomes(tmp_path, after, of(fine))
    assert {title: o.status for title, o in found.items()} == {function.__name__: "failed", "after": "skipped", "fine": "done"}
    outcome = pickle.loads(pickle.dumps(found[function.__name__]))
    assert outcome.error.startswith(words)
    assert words.partition(":")[0] in (bad.directory(tmp_path) / "error.log").read_text()


@pytest.mark.parametrize(("function", "kind"), [(bad_input, UserError), (fills_the_disk, OSError)])
def test_what_is_the_users_to_mend_is_raised_in_a_class_that_every_process_knows(tmp_path, function, kind):
    with pytest.raises(kind, match="a file") as caught:
        run_one(tmp_path, of(function))
    assert type(caught.value) is kind
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_a_fault_is_an_outcome_even_where_no_log_can_be_written(tmp_path, monkeypatch):
    def refuse(path, write):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))

    monkeypatch.setattr(making, "write_atomically", refuse)
    assert run_one(tmp_path, of(odd)).status == "failed"


def start_without_torch(position, threads, parent):
    pass


def test_a_worker_that_dies_takes_one_run_with_it(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(processes, "_start_worker", start_without_torch)
    bad, good = of(dies), of(fine)
    after = [RunSpec("after", {}, {"it": it}, title=f"after {it.title}", function=f"{__name__}:fine") for it in (bad, good)]
    found = outcomes(tmp_path, *after, workers=2)
    assert {title: o.status for title, o in found.items()} == {
        "dies": "failed", "after dies": "skipped", "fine": "done", "after fine": "done",
    }  # fmt: skip
    assert found["dies"].error.startswith("its process died 2 times (exit code 3): ")
    assert capfd.readouterr().err == "dies: the process that made it died (exit code 3); it is made again alone\n"


def test_a_run_beside_which_a_worker_died_is_made_again_alone(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(processes, "_start_worker", start_without_torch)
    found = outcomes(tmp_path, of(dies_once), workers=2)
    assert {title: o.status for title, o in found.items()} == {"dies_once": "done"}
    assert capfd.readouterr().err.count("\n") == 1


def waits(run):
    (run.root / "waits").write_text("")
    while True:
        time.sleep(0.02)


def waits_for_it(run):
    while not (run.root / "waits").exists():
        time.sleep(0.02)


def test_workers_that_are_stopped_give_back_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_start_worker", start_without_torch)
    held, beside = of(waits), of(waits_for_it)
    outcomes = run_sweep(tmp_path, [held, beside], workers=2)
    assert next(outcomes).spec.title == "waits_for_it"
    outcomes.close()
    (lease,) = held.directory(tmp_path).glob("lease-*.json")
    assert lease.read_text() == '{"given_back": true}'


def test_a_worker_that_died_with_nothing_to_do_is_no_death_of_a_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(processes, "_start_worker", start_without_torch)
    with processes.Processes(tmp_path, 2) as engine:
        for spec in (of(fine), of(dies_once)):
            if engine.workers:
                engine.workers[0].process.kill()
                engine.workers[0].process.join()
            (tmp_path / "died").write_text("")
            engine.submit(spec)
            assert [outcome.status for outcome in engine.wait(240)] == ["done"]


def test_a_run_that_another_process_holds_is_waited_for_when_all_else_is_done(tmp_path, capsys, monkeypatch):
    held = of(fine)
    after = RunSpec("after", {}, {"held": held}, title="after", function=f"{__name__}:fine")
    other = RunSpec("other", {}, title="other", function=f"{__name__}:fine")
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from suite.engine.store import RunSpec, open_run
        with open_run(Path({str(tmp_path)!r}), RunSpec("stage", {{"name": "fine"}})) as run:
            print("held", flush=True)
            sys.stdin.readline()
        """
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(sweep, "ASK_AGAIN_S", 0.02)
    try:
        assert holder.stdout.readline() == "held\n"
        seen = []
        for outcome in run_sweep(tmp_path, [after, other], workers=1):
            seen.append((outcome.spec.title, outcome.status))
            if holder.poll() is None:
                holder.communicate("go on\n")
    finally:
        holder.kill()
        holder.wait()
    assert seen == [("other", "done"), ("fine", "done"), ("after", "done")]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{held.directory(tmp_path)}: held by the live process {holder.pid}" in err


def test_a_run_that_lost_its_process_waits_for_the_others_and_they_for_it(tmp_path, capsys):
    specs = [of(function) for function in (fine, dies, odd)]
    left = sweep._Left(specs, Clock(specs, 2), processes.Processes(tmp_path, 2))

    def begun():
        found = left.next()
        left.running.update({spec.key: spec for spec in found})
        for spec in found:
            left.clock.start(spec)
        return found

    one, other = begun()
    assert left.ended(making.Outcome(one, "lost", "signal SIGKILL")) == []
    assert begun() == []  # the other is at work
    assert [o.status for o in left.ended(making.Outcome(other, "done"))] == ["done"]
    assert begun() == [one]
    assert begun() == []  # nothing beside it
    (failed,) = left.ended(making.Outcome(one, "lost", "signal SIGKILL"))
    assert failed.status == "failed"
    assert failed.error.startswith("its process died 2 times (signal SIGKILL)")
    assert len(begun()) == 1
    assert capsys.readouterr().err == f"{one.title}: the process that made it died (signal SIGKILL); it is made again alone\n"


def test_what_is_held_is_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "ASK_AGAIN_S", 0.0)
    spec = of(fine)
    left = sweep._Left([spec], Clock([spec], 1), processes.Here(tmp_path))
    for _ in range(3):
        assert left.next() == [spec]
        assert left.ended(making.Outcome(spec, "held", "held by the live process 7")) == []
    assert capsys.readouterr().err == "held by the live process 7; waiting for it when all else is done\n"
    assert left.next() == [spec]
    monkeypatch.setattr(sweep, "ASK_AGAIN_S", 1e9)
    assert left.ended(making.Outcome(spec, "held", "held by the live process 7")) == []
    assert left.next() == []
