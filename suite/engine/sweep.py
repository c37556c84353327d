"""Run many specifications: each as soon as its inputs are done, in worker processes that die with their parent."""

import ctypes
import errno
import multiprocessing
import os
import pkgutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.common.machine import available_cores, quiet_libraries
from suite.engine import progress, speed
from suite.engine.clock import Clock
from suite.engine.store import RunSpec, open_run, status
from suite.engine.tracking import Tracker, check_tracker


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `cached`, `done`, `failed` or `skipped` (an input failed)."""

    spec: RunSpec
    status: str
    error: str = ""


def closure(targets: Sequence[RunSpec]) -> list[RunSpec]:
    """`targets` and all they need, inputs first, each once."""
    ordered: dict[str, RunSpec] = {}

    def visit(spec: RunSpec) -> None:
        if spec.key not in ordered:
            for needed in spec.inputs.values():
                visit(needed)
            ordered[spec.key] = spec

    for target in targets:
        visit(target)
    return list(ordered.values())


def run_one(root: Path, spec: RunSpec, tracker: Tracker = "none") -> Outcome:
    """Make one run if it is not done. A fault becomes an `Outcome` and leaves `error.log` beside the run.
    Raises UserError for bad input (a held run, a malformed row) and OSError without permission or with a full disk.
    """
    try:
        with open_run(root, spec, tracker) as run:
            if run.done:
                return Outcome(spec, "cached")
            pkgutil.resolve_name(spec.function)(run)
            run.finish()
        return Outcome(spec, "done")
    except Exception as error:
        disk_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if disk_full or isinstance(error, UserError | PermissionError):
            raise  # the user's to mend, as a held run or a bad row is: stop the sweep and say so
        log = spec.directory(root) / "error.log"
        write_atomically(log, lambda path: path.write_text(traceback.format_exc()))
        return Outcome(spec, "failed", f"{type(error).__name__}: {error} (log: {log})")


def run_sweep(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> Iterator[Outcome]:
    """Make `targets` and all they need; yields each outcome as it comes.

    With one worker everything happens in this process, on all its threads; with more, each worker gets an equal share of
    the threads. What most work waits for goes first. Runs are idempotent: after a failure or a kill, the same call goes on.
    """
    todo: list[RunSpec] = []
    for spec in closure(targets):
        if (spec.directory(root) / "DONE").exists():
            yield Outcome(spec, "cached")
        else:
            todo.append(spec)
    if not todo:
        return
    clock = Clock(todo, workers)
    with progress.Watch(clock) as watch:
        one = partial(run_one, root, tracker=tracker)
        yield from _run_here(one, todo, clock, watch) if workers == 1 else _run_in_pool(one, todo, workers, clock, watch)


def _run_here(
    one: Callable[[RunSpec], Outcome], todo: list[RunSpec], clock: Clock, watch: progress.Watch
) -> Iterator[Outcome]:  # fmt: skip
    failed: set[str] = set()
    progress.set_position(1)
    if sample := clock.worth_measuring:
        clock.measured([speed.measured(sample)])
    for spec in todo:
        outcome = _skipped(spec, failed)
        if not outcome:
            clock.start(spec)
            watch.show()
            outcome = one(spec)
        clock.end(spec, outcome.status)
        if outcome.status in ("failed", "skipped"):
            failed.add(spec.key)
        yield outcome


def _run_in_pool(
    one: Callable[[RunSpec], Outcome], todo: list[RunSpec], workers: int, clock: Clock, watch: progress.Watch
) -> Iterator[Outcome]:  # fmt: skip
    context = multiprocessing.get_context("spawn")
    slots = context.Queue()
    for position in range(1, workers + 1):
        slots.put(position)
    threads = max(1, available_cores() // workers)
    waiting, running = list(todo), dict[Future, RunSpec]()
    unfinished, failed = {spec.key for spec in todo}, set[str]()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(slots, threads, os.getpid()))
    try:
        if sample := clock.worth_measuring:
            clock.measured([f.result() for f in [pool.submit(speed.measured, sample) for _ in range(workers)]])
        while waiting or running:
            ready = [spec for spec in waiting if unfinished.isdisjoint(needed.key for needed in spec.inputs.values())]
            ready.sort(key=clock.chain, reverse=True)
            for spec in ready[: workers + 1 - len(running)]:  # one in reserve, so that no worker waits
                waiting.remove(spec)
                if skipped := _skipped(spec, failed):
                    failed.add(spec.key)
                    unfinished.remove(spec.key)
                    clock.end(spec, skipped.status)
                    yield skipped
                else:
                    running[pool.submit(one, spec)] = spec
            for spec in list(running.values())[:workers]:
                clock.start(spec)
            watch.show()
            for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done if running else ():
                spec = running.pop(future)
                outcome = future.result()
                unfinished.remove(spec.key)
                clock.end(spec, outcome.status)
                if outcome.status == "failed":
                    failed.add(spec.key)
                yield outcome
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (out of memory?); start the same command again to go on, with --workers 1 if it "
            "happens again"
        ) from error
    except BaseException:  # stop now: what is not done is resumed by the next start
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _skipped(spec: RunSpec, failed: set[str]) -> Outcome | None:
    bad = [needed.title for needed in spec.inputs.values() if needed.key in failed]
    return Outcome(spec, "skipped", f"needs {bad[0]}, which failed") if bad else None


def _start_worker(slots, threads: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the parent, so that its locks are freed
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the sweep
    import torch

    torch.set_num_threads(threads)
    quiet_libraries()
    progress.set_position(slots.get())


def print_plan(root: Path, targets: Sequence[RunSpec], *, workers: int, whole: bool) -> None:
    """How many runs a plan has, and whether they fit into memory; the `whole` plan is every run with its `status` and what it
    will take: tokens (a trained one counts 3) and GiB, both estimates.
    """
    from suite.engine.memory import GIB, host_memory_of, memory_of, what_cannot_fit

    def gib(memory: float | None) -> str:
        return "–" if memory is None else f"{memory / GIB:.1f}"

    specs = closure(targets)
    states = {spec: status(root, spec) for spec in specs}
    if whole:
        on_gpu = any(spec.where.get("device", "cpu").startswith("cuda") for spec in specs)
        sizes = {"GPU, GiB": memory_of, "host, GiB": host_memory_of} if on_gpu else {"GiB": memory_of}
        rows = [
            (spec.stage, spec.title, state, f"{spec.cost:,.0f}", *(gib(of(spec)) for of in sizes.values()), spec.key[:16])
            for spec, state in states.items()
        ]
        align = ["left"] * 3 + ["right"] * (1 + len(sizes)) + ["left"]
        headers = ["stage", "run", "status", "tokens", *sizes, "key"]
        print(tabulate(rows, headers=headers, colalign=align, disable_numparse=True) + "\n")
    counts = Counter(states.values())
    print(f"{len(specs)} runs: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + f" ({root})")
    problem = what_cannot_fit([spec for spec, state in states.items() if state != "cached"], workers=workers)
    fits = f"{workers} at a time fit into the memory that is free here"
    print(f"does not fit here: {problem}" if problem else fits, flush=True)


def run_all(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> list[Outcome]:
    """Make all targets under one progress bar; prints and returns those that failed.
    Raises UserError, before anything is computed, if one needs more memory than is free or the tracker is not installed.
    """
    from suite.engine.memory import what_cannot_fit

    quiet_libraries()
    check_tracker(tracker)
    todo = [spec for spec in closure(targets) if status(root, spec) != "cached"]
    if problem := what_cannot_fit(todo, workers=workers):
        raise UserError(problem)
    outcomes = run_sweep(root, targets, workers=workers, tracker=tracker)
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    if failed:
        print(tabulate([(o.spec.title, o.status, o.error) for o in failed], headers=["run", "status", "why"]))
    return failed
