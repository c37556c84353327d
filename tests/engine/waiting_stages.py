"""Stages that say when they begin, and that wait for a word, for tests of engines whose workers are elsewhere."""

import time

from suite.engine import pull_workers
from suite.engine.store import RunSpec

STAGES = '''
import os, time
from suite.common.errors import UserError

def say(run, what):
    with (run.root / "log").open("a") as log:
        log.write(f"{run.spec.title} {what} {os.getpid()}\\n")

def make(run):
    """Wait, if it is to, until somebody says go."""
    say(run, "begun")
    while run.spec.config.get("waits") and not (run.root / "go").exists():
        time.sleep(0.02)
    (run.directory / "result").write_text(run.spec.title)

def fail(run):
    say(run, "begun")
    raise ValueError("seven")

def refuse(run):
    say(run, "begun")
    raise UserError("row 7: no prompt")
'''


def settle(folder, monkeypatch):
    """Make a folder the current one, with a module of stages that only who looks there finds."""
    (folder / "stages_here.py").write_text(STAGES)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(pull_workers, "LOOK_EVERY_S", 0.02)
    return folder


def of(title, *inputs, function="make", **config):
    needed = {str(k): spec for k, spec in enumerate(inputs)}
    return RunSpec("stage", {"title": title, **config}, needed, title=title, function=f"stages_here:{function}")


def log(root):
    lines = (root / "log").read_text().splitlines() if (root / "log").exists() else []
    return [tuple(line.rsplit(" ", 2)) for line in lines]


def wait_for(what):
    deadline = time.monotonic() + 240
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
