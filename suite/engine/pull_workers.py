"""Runs made by whoever comes: a plan in a file, and processes that take from it what nobody makes yet, until nothing is left.

Any scheduler can start them, on any machine that sees the folder of runs; none needs to know of another, since a lease says who
makes a run, and `DONE` that it is made. `<runs>/plans/<name>.json` is the plan, and `<runs>/plans/<name>.failed/` holds
what failed, so that no other tries it.
"""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from suite.common.errors import UserError
from suite.common.files import remove, write_atomically
from suite.engine.making import MOST_DEATHS, Outcome, run_one
from suite.engine.manifest import done, read_json
from suite.engine.plan_file import write_plan
from suite.engine.processes import Here
from suite.engine.store import RunSpec
from suite.engine.tracking import Tracker
from suite.engine.workload import Speed

LOOK_EVERY_S = 1.0
BAD_INPUT = "bad input"
"""In place of a run's key: what is the user's to mend ends all who work on the plan."""


class PullWorkers:
    """The side that waits: it writes the plan and looks what becomes of it. What failed before is tried again."""

    at_once, most_deaths, alone, shared = 10**6, MOST_DEATHS, False, True

    def __init__(self, root: Path, targets: Sequence[RunSpec]) -> None:
        self.root, self.plan = root, write_plan(root, targets)
        self.waited_for = dict[str, RunSpec]()
        remove(failures_of(self.plan))

    def submit(self, spec: RunSpec) -> None:
        """See `Engine`."""
        self.waited_for[spec.key] = spec

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`."""
        until = time.monotonic() + seconds
        while not (found := [outcome for spec in self.waited_for.values() if (outcome := self._outcome(spec))]):
            if time.monotonic() >= until:
                return []
            time.sleep(min(LOOK_EVERY_S, seconds))
        for outcome in found:
            del self.waited_for[outcome.spec.key]
        return found

    def measure(self, sample: RunSpec) -> list[Speed]:
        """See `Engine`."""
        return []

    def _outcome(self, spec: RunSpec) -> Outcome | None:
        if done(spec.directory(self.root)):
            return Outcome(spec, "done")
        return failure(self.plan, spec)

    def __enter__(self) -> Self:
        print(
            f"start as many workers as you like, wherever {self.root} is seen: suite work {self.plan}",
            file=sys.stderr,
            flush=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class OneOfMany(Here):
    """The side that works: one run at a time in this process, like `Here`, of a plan that others work on too."""

    most_deaths, alone, shared = MOST_DEATHS, False, True

    def __init__(self, root: Path, plan: Path, tracker: Tracker = "none", gpus: int = 1) -> None:
        super().__init__(root)
        self.plan = plan
        self.make = partial(run_one, root, tracker=tracker, gpus=gpus, most_deaths=MOST_DEATHS)
        self.one = self._one

    def _one(self, spec: RunSpec) -> Outcome:
        if known := failure(self.plan, spec):
            return known
        try:
            outcome = self.make(spec)
        except UserError as error:  # an OSError is of this machine: its disk, its rights
            note(self.plan, BAD_INPUT, f"{spec.stage} {spec.title!r}: {error}")
            raise
        if outcome.status == "failed":
            note(self.plan, spec.key[:16], outcome.error)
        return outcome


def failures_of(plan: Path) -> Path:
    """Where a plan's failed runs are noted."""
    return plan.with_suffix(".failed")


def note(plan: Path, name: str, error: str) -> None:
    """Say to all who work on a plan that a run has failed, or that the input is bad."""
    write_atomically(failures_of(plan) / f"{name}.json", lambda path: path.write_text(json.dumps({"error": error}) + "\n"))


def failure(plan: Path, spec: RunSpec) -> Outcome | None:
    """The outcome of a run that failed. Raises UserError where the input of any run was bad."""
    if (bad := failures_of(plan) / f"{BAD_INPUT}.json").exists():
        raise UserError(str(read_json(bad).get("error")))
    path = failures_of(plan) / f"{spec.key[:16]}.json"
    return Outcome(spec, "failed", str(read_json(path).get("error"))) if path.exists() else None
