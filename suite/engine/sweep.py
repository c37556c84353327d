"""Run many specifications: each as soon as its inputs are done, in worker processes that die with their parent."""

import contextlib
import ctypes
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
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
from suite.common.files import of_the_disk, write_atomically
from suite.common.machine import available_cores, quiet_libraries
from suite.engine import progress, speed
from suite.engine.clock import Clock
from suite.engine.manifest import done
from suite.engine.store import Damaged, Held, RunSpec, open_run, reading, status
from suite.engine.tracking import Tracker, check_tracker

ASK_AGAIN_S = 2.0
"""A run that another process holds is asked for again after so many seconds."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `cached`, `done`, `failed`, `skipped` (an input failed), or not yet: `held` by another process."""

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
    """Make one run if it is not done. A fault, whatever is raised, becomes an `Outcome` and leaves `error.log` beside the run.
    Raises UserError for bad input (a malformed row), and OSError without permission or with a full disk.
    """
    try:
        with open_run(root, spec, tracker) as run:
            if run.done:
                return Outcome(spec, "cached")
            with reading(root, spec.inputs.values()):
                pkgutil.resolve_name(spec.function)(run)
            run.finish()
        return Outcome(spec, "done")
    except (Held, Damaged) as error:
        return Outcome(spec, "held" if isinstance(error, Held) else "failed", str(error))
    except UserError as error:  # the user's to mend: stop the sweep and say so, in a class that every process knows
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: other runs go on
        if of_the_disk(error):
            raise OSError(error.errno, error.strerror, error.filename) from error
        log = spec.directory(root) / "error.log"
        with contextlib.suppress(OSError):
            write_atomically(log, lambda path: path.write_text(traceback.format_exc(), encoding="utf-8", errors="replace"))
        return Outcome(spec, "failed", f"{type(error).__name__}: {error} (log: {log})")


def run_sweep(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> Iterator[Outcome]:
    """Make `targets` and all they need; yields each outcome as it comes.

    With one worker everything happens in this process, on all its threads; with more, each worker gets an equal share of
    the threads. What most work waits for goes first, and what another process makes just now is waited for in the end. Runs are
    idempotent: after a failure or a kill, the same call goes on.
    """
    todo: list[RunSpec] = []
    for spec in closure(targets):
        if done(spec.directory(root)):
            yield Outcome(spec, "cached")
        else:
            todo.append(spec)
    if not todo:
        return
    clock = Clock(todo, workers)
    with progress.Watch(clock) as watch:
        one, left = partial(run_one, root, tracker=tracker), _Left(todo, clock)
        yield from _run_here(one, left, watch) if workers == 1 else _run_in_pool(one, left, workers, watch)


class _Left:
    """What a sweep has yet to do. A run is ready when its inputs are made; one that another process holds is asked later."""

    def __init__(self, todo: Sequence[RunSpec], clock: Clock) -> None:
        self.waiting, self.clock = list(todo), clock
        self.unfinished, self.failed = {spec.key for spec in todo}, set[str]()
        self.asked: dict[str, float] = {}  # when, of runs that were held

    def ready(self) -> list[RunSpec]:
        """What can be begun now."""
        now = time.monotonic()
        return [
            spec
            for spec in self.waiting
            if self.unfinished.isdisjoint(needed.key for needed in spec.inputs.values())
            and now - self.asked.get(spec.key, -ASK_AGAIN_S) >= ASK_AGAIN_S
        ]

    def skipped(self, spec: RunSpec) -> Outcome | None:
        """The outcome of a run that cannot be made."""
        bad = [needed.title for needed in spec.inputs.values() if needed.key in self.failed]
        return Outcome(spec, "skipped", f"needs {bad[0]}, which failed") if bad else None

    def ended(self, outcome: Outcome) -> list[Outcome]:
        """Note how a run ended; what is to be told of it, which is nothing if it is held and waits again."""
        spec = outcome.spec
        if outcome.status == "held":
            if spec.key not in self.asked:
                print(f"{outcome.error}; waiting for it when all else is done", file=sys.stderr, flush=True)
            self.asked[spec.key] = time.monotonic()
            self.waiting.append(spec)
            return []
        self.unfinished.remove(spec.key)
        self.clock.end(spec, outcome.status)
        if outcome.status in ("failed", "skipped"):
            self.failed.add(spec.key)
        return [outcome]


def _run_here(one: Callable[[RunSpec], Outcome], left: _Left, watch: progress.Watch) -> Iterator[Outcome]:
    clock = left.clock
    progress.set_position(1)
    if sample := clock.worth_measuring:
        clock.measured([speed.measured(sample)])
    while left.waiting:
        if not (ready := left.ready()):
            time.sleep(ASK_AGAIN_S / 4)
            continue
        spec = ready[0]
        left.waiting.remove(spec)
        outcome = left.skipped(spec)
        if not outcome:
            clock.start(spec)
            watch.show()
            outcome = one(spec)
        yield from left.ended(outcome)


def _run_in_pool(
    one: Callable[[RunSpec], Outcome], left: _Left, workers: int, watch: progress.Watch
) -> Iterator[Outcome]:  # fmt: skip
    """A worker that dies (native code, memory) takes the pool with it: the runs that were in it are made again one at a time,
    and one that dies alone too has failed.
    """
    clock, running = left.clock, dict[Future, RunSpec]()
    lost, suspects = list[RunSpec](), set[str]()
    pool = _pool(workers)
    try:
        if sample := clock.worth_measuring:
            with contextlib.suppress(BrokenProcessPool):
                clock.measured([f.result() for f in [pool.submit(speed.measured, sample) for _ in range(workers)]])
        while left.waiting or running or lost:
            if lost and not running:
                pool.shutdown(wait=True)
                pool = _pool(workers)
                yield from _after_a_death(lost, suspects, left)
            for spec in _next(left, running, suspects, workers) if not lost else ():
                left.waiting.remove(spec)
                if skipped := left.skipped(spec):
                    yield from left.ended(skipped)
                else:
                    try:
                        running[pool.submit(one, spec)] = spec
                    except BrokenProcessPool:
                        lost.append(spec)
            for spec in list(running.values())[:workers]:
                clock.start(spec)
            watch.show()
            if not (running or lost or left.ready()):
                time.sleep(ASK_AGAIN_S / 4)
            for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done if running else ():
                spec = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    lost.append(spec)
                    continue
                suspects.discard(spec.key)
                yield from left.ended(outcome)
    except BaseException:  # stop now: what is not done is resumed by the next start
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(left: _Left, running: dict[Future, RunSpec], suspects: set[str], workers: int) -> list[RunSpec]:
    """What to begin: runs that may have killed a worker alone and first, then what most work waits for."""
    ready = sorted(left.ready(), key=left.clock.chain, reverse=True)
    if suspects:
        return [spec for spec in ready if spec.key in suspects][:1] if not running else []
    return ready[: workers + 1 - len(running)]  # one in reserve, so that no worker waits


def _after_a_death(lost: list[RunSpec], suspects: set[str], left: _Left) -> Iterator[Outcome]:
    guilty = [spec for spec in lost if spec.key in suspects]
    others = [spec for spec in lost if spec.key not in suspects]
    lost.clear()
    for spec in guilty:
        suspects.remove(spec.key)
        words = "its worker process died twice, the second time with nothing beside it (a crash of native code, or memory)"
        yield from left.ended(Outcome(spec, "failed", words))
    if others:
        suspects.update(spec.key for spec in others)
        left.waiting[:0] = others
        titles = "; ".join(spec.title for spec in others)
        print(f"a worker process died (a crash, or memory) at one of: {titles}; made again one by one", file=sys.stderr)


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    slots = context.Queue()
    for position in range(1, workers + 1):
        slots.put(position)
    threads = max(1, available_cores() // workers)
    return ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(slots, threads, os.getpid()))


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
    from suite.engine.memory import GIB, host_memory_of, memory_of, what_cannot_fit, what_disk_lacks

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
    todo = [spec for spec, state in states.items() if state != "cached"]
    problem = what_cannot_fit(todo, workers=workers) or what_disk_lacks(todo, root)
    fits = f"{workers} at a time fit into the memory that is free here"
    print(f"does not fit here: {problem}" if problem else fits, flush=True)


def run_all(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> list[Outcome]:
    """Make all targets under one progress bar; prints and returns those that failed.
    Raises UserError, before anything is computed, if one needs more memory than is free or all of them more disk, or the
    tracker is not installed.
    """
    from suite.engine.memory import what_cannot_fit, what_disk_lacks

    quiet_libraries()
    check_tracker(tracker)
    todo = [spec for spec in closure(targets) if status(root, spec) != "cached"]
    if problem := what_cannot_fit(todo, workers=workers) or what_disk_lacks(todo, root):
        raise UserError(problem)
    outcomes = run_sweep(root, targets, workers=workers, tracker=tracker)
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    if failed:
        print(tabulate([(o.spec.title, o.status, o.error) for o in failed], headers=["run", "status", "why"]))
    return failed
