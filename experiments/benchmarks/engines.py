"""What a sweep itself costs as it grows: runs that do nothing, by engine.

A run that does nothing is opened, held, hashed and finished like any other. The peer is a loop that makes the same runs in this
process; beside it a sweep of which nothing is made at all, so that only its own work is left.

examples:
  python experiments/benchmarks/engines.py
  python experiments/benchmarks/engines.py --counts 10,100 --workers 4
  pip install ".[ray,submitit]" && python experiments/benchmarks/engines.py
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.analysis.records import write_text
from suite.cli.options import RESULTS, made_here, parse_integers, run_script
from suite.cli.ranges import Count, Folder
from suite.common.errors import UserError
from suite.common.machine import available_cores
from suite.engine.engine import Engine
from suite.engine.engines import EngineName, Means
from suite.engine.making import Outcome, run_one
from suite.engine.processes import Here, Processes
from suite.engine.pull_workers import PullWorkers
from suite.engine.store import RunSpec
from suite.engine.sweep import run_sweep
from suite.report.page import page, table

WORDS = """*ms a run*: of all but the first, which processes have to start for; *beside the loop*: the same, as a share of the
loop's; *CPU*: seconds of this process, where the sweep is."""

EXTRAS = {"jobs of submitit": "submitit", "tasks of Ray": "ray"}
"""Engines that are measured where they are installed."""


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    counts: str = "10,100,1000"
    """Comma-separated numbers of runs."""
    workers: Count = 2
    """Worker processes, pull workers and jobs; Ray takes the cores that there are."""
    out: Folder = RESULTS / "benchmarks"
    """Where engines.md goes."""


class Nobody(Here):
    """Makes nothing, and says that it is done."""

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`."""
        return [Outcome(self.submitted.pop(0), "done")]


def main(args: Arguments) -> int:
    rows: list[dict[str, Any]] = []
    extras = [name for name, package in EXTRAS.items() if importlib.util.find_spec(package)]
    measured("a loop", [RunSpec("nothing", {"k": k}, function="builtins:repr") for k in range(2)], 1)  # what is imported once
    for count in parse_integers(args.counts, "--counts", example="10,100,1000", least=2):
        specs = [RunSpec("nothing", {"k": k}, title=f"nothing {k}", function="builtins:repr") for k in range(count)]
        peer = 0.0
        for name in ("a loop", "a sweep, nothing made", "this process", "worker processes", "pull workers", *extras):
            each, first, cpu = measured(name, specs, args.workers)
            peer = peer or each
            rows.append({
                "runs": count, "made by": name, "first after": f"{first:.2f} s", "ms a run": f"{1000 * each:.2f}",
                "beside the loop": f"{each / peer:.1%}", "CPU": f"{cpu:.2f} s",
            })  # fmt: skip
            print(rows[-1], flush=True)
    origin = made_here(f"{available_cores()} cores, {args.workers} workers")
    text = page("Engines", [("", origin), ("", WORDS), ("", table(rows))])
    write_text(args.out / "engines.md", text)
    print(text)
    return 0


def measured(name: str, specs: Sequence[RunSpec], workers: int) -> tuple[float, float, float]:
    """Seconds of a run after the first, seconds until the first was done, CPU seconds of this process."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root, ends = Path(scratch), list[float]()
        began, used = time.perf_counter(), time.process_time()
        engine: Engine
        if name == "pull workers":
            engine = PullWorkers(root, specs)
            program = [sys.executable, "-m", "suite.cli.main", "work", str(engine.plan), "--threads", "1"]
            for _ in range(workers):
                stack.enter_context(subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        elif name == "worker processes":
            engine = Processes(root, workers)
        elif name in EXTRAS:
            kind: EngineName = "ray" if name == "tasks of Ray" else "submitit"
            engine = Means(workers, engine=kind).open(root, specs)
        else:
            engine = Here(root) if name == "this process" else Nobody(root)
        outcomes = (run_one(root, spec) for spec in specs) if name == "a loop" else run_sweep(root, specs, engine=engine)
        for outcome in outcomes:
            if outcome.status != "done":
                raise UserError(f"{outcome.spec.title}: {outcome.status} {outcome.error}")
            ends.append(time.perf_counter())
        return (ends[-1] - ends[0]) / (len(specs) - 1), ends[0] - began, time.process_time() - used


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
