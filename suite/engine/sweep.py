"""Run many specifications: each as soon as its inputs are done, by an engine."""

import heapq
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from suite.common.errors import UserError
from suite.common.machine import quiet_libraries
from suite.engine import progress
from suite.engine.clock import Clock
from suite.engine.engine import Engine
from suite.engine.engines import Means
from suite.engine.making import Outcome, closure
from suite.engine.manifest import done
from suite.engine.plan_file import write_plan
from suite.engine.rank_runs import ranks_of
from suite.engine.store import RunSpec, statuses
from suite.engine.tracking import Tracker, check_tracker

ASK_AGAIN_S = 2.0
"""A run that another process holds is asked for again after so many seconds."""


def run_sweep(
    root: Path, targets: Sequence[RunSpec], *, workers: int = 1, tracker: Tracker = "none", engine: Engine | None = None
) -> Iterator[Outcome]:
    """Make `targets` and all they need; yields each outcome as it comes.

    Where no engine is given, one worker makes everything in this process, on all its threads; more share the threads. What
    most work waits for goes first, and what another process makes just now is waited for in the end. A run whose process died
    is made again. Runs are idempotent: after a failure or a kill, the same call goes on.
    """
    todo: list[RunSpec] = []
    for spec in closure(targets):
        if done(spec.directory(root)):
            yield Outcome(spec, "cached")
        else:
            todo.append(spec)
    if not todo:
        return
    with engine or Means(workers, tracker).open(root, targets) as engine:
        clock = Clock(todo, 1 if engine.shared else engine.at_once)
        with progress.Watch(clock) as watch:
            if (sample := clock.worth_measuring) and (speeds := engine.measure(sample)):
                clock.measured(speeds)
            yield from _make(engine, _Left(todo, clock, engine), watch)


def _make(engine: Engine, left: "_Left", watch: progress.Watch) -> Iterator[Outcome]:
    while left.unfinished:
        for spec in left.next():
            if skipped := left.skipped(spec):
                yield from left.ended(skipped)
                continue
            left.running[spec.key] = spec
            left.clock.start(spec)
            engine.submit(spec)
        watch.show()
        if not left.running:
            if not left.ready:
                time.sleep(ASK_AGAIN_S / 4)
            continue
        for outcome in engine.wait(1.0):
            yield from left.ended(outcome)


class _Left:
    """What a sweep has yet to do. A run is ready when its inputs are made; one that another process holds is asked later."""

    def __init__(self, todo: Sequence[RunSpec], clock: Clock, engine: Engine) -> None:
        self.clock, self.engine = clock, engine
        self.unfinished = {spec.key: spec for spec in todo}
        self.running, self.failed, self.deaths = dict[str, RunSpec](), set[str](), Counter[str]()
        first = engine.at_once > 1 or engine.shared  # what most work waits for
        self.order = {spec.key: (-clock.chain(spec) if first else 0.0, k) for k, spec in enumerate(todo)}
        self.missing = {spec.key: {n.key for n in spec.inputs.values()} & self.unfinished.keys() for spec in todo}
        self.ready = [self.order[key] for key, missing in self.missing.items() if not missing]
        self.at = {place: spec for spec, place in zip(todo, self.order.values(), strict=True)}
        heapq.heapify(self.ready)
        self.held: list[tuple[float, RunSpec]] = []  # and when they are asked for again, in this order
        self.asked, self.suspects = set[str](), list[RunSpec]()

    def next(self) -> list[RunSpec]:
        """What is to be begun now; where all share one memory, a run at which a process died first, with nothing beside it."""
        while self.held and self.held[0][0] <= time.monotonic():
            heapq.heappush(self.ready, self.order[self.held.pop(0)[1].key])
        if self.suspects:
            return [self.suspects.pop(0)] if not self.running else []
        if self.engine.alone and not self.deaths.keys().isdisjoint(self.running):
            return []
        count = min(len(self.ready), self.engine.at_once - len(self.running))
        return [self.at[heapq.heappop(self.ready)] for _ in range(count)]

    def skipped(self, spec: RunSpec) -> Outcome | None:
        """The outcome of a run that cannot be made."""
        bad = [needed.title for needed in spec.inputs.values() if needed.key in self.failed]
        return Outcome(spec, "skipped", f"needs {bad[0]}, which failed") if bad else None

    def ended(self, outcome: Outcome) -> list[Outcome]:
        """Note how a run ended; what is to be told of it, which is nothing if it waits again."""
        spec = outcome.spec
        self.running.pop(spec.key, None)
        if outcome.status == "held":
            if spec.key not in self.asked and not self.engine.shared:
                _say(f"{outcome.error}; waiting for it when all else is done")
            self.asked.add(spec.key)
            self.held.append((time.monotonic() + ASK_AGAIN_S, spec))
            return []
        if outcome.status == "lost":
            self.deaths[spec.key] += 1
            if self.deaths[spec.key] < self.engine.most_deaths:
                how = "made again alone" if self.engine.alone else "made again"
                _say(f"{spec.title}: the process that made it died ({outcome.error}); it is {how}")
                if self.engine.alone:
                    self.suspects.append(spec)
                else:
                    heapq.heappush(self.ready, self.order[spec.key])
                return []
            words = f"its process died {self.deaths[spec.key]} times ({outcome.error}): a crash of native code, or memory"
            outcome = Outcome(spec, "failed", words + ", the last time with nothing beside it" * self.engine.alone)
        self.deaths.pop(spec.key, None)
        self.clock.end(spec, outcome.status)
        if outcome.status in ("failed", "skipped"):
            self.failed.add(spec.key)
        del self.unfinished[spec.key]
        for after in self.clock.next.get(spec.key, ()):
            self.missing[after.key].discard(spec.key)
            if not self.missing[after.key]:
                heapq.heappush(self.ready, self.order[after.key])
        return [outcome]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_plan(root: Path, targets: Sequence[RunSpec], means: Means, *, whole: bool) -> None:
    """How many runs a plan has, whether they fit into memory, and the disk that the policies which are kept will take; the
    `whole` plan is every run with its `status` and what it will take: tokens (a trained one counts 3) and GiB, both estimates.
    """
    from suite.engine.memory import GIB, disk_of, host_memory_of, memory_of

    def gib(memory: float | None) -> str:
        return "–" if memory is None else f"{memory / GIB:.1f}"

    specs = closure(targets)
    states = statuses(root, specs)
    if whole and means.engine == "workers":
        print(f"the plan, for suite work and suite forecast: {write_plan(root, targets)}\n")
    if whole:
        on_gpu = any(spec.where.get("device", "cpu").startswith("cuda") for spec in specs)

        def of_each(spec: RunSpec) -> float | None:
            return memory_of(spec, ranks_of(spec, means.gpus))

        sizes = {"GPU, GiB": of_each, "host, GiB": host_memory_of} if on_gpu else {"GiB": of_each}
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
    problem = what_lacks(root, todo, means)
    fits = f"{means.workers} at a time fit into the memory that is free here" if means.here else "made by whoever works on it"
    kept = sum(disk_of(spec) or 0.0 for spec in todo)
    disk = f"; the policies that are kept will take {kept / GIB:.1f} GiB of disk" if kept > GIB / 10 else ""
    print(f"does not fit here: {problem}" if problem else fits + disk, flush=True)


def what_lacks(root: Path, todo: Sequence[RunSpec], means: Means) -> str | None:
    """What is in the way of making all of it, memory of this machine if they are made here or disk, and what to do."""
    from suite.engine.memory import what_cannot_fit, what_disk_lacks

    if means.gpus > 1 and any(spec.where.get("sampler") == "vllm" for spec in todo):
        return "--sampler vllm goes with one GPU for each run; leave out --gpus (or torchrun), or draw with the suite's sampler"
    memory = what_cannot_fit(todo, workers=means.workers, gpus=means.gpus) if means.here else None
    return memory or what_disk_lacks(todo, root)


def run_all(root: Path, targets: Sequence[RunSpec], means: Means) -> list[Outcome]:
    """Make all targets under one progress bar; prints and returns those that failed.
    Raises UserError, before anything is computed, if one needs more memory than is free or all of them more disk, or the
    tracker is not installed.
    """
    quiet_libraries()
    check_tracker(means.tracker)
    todo = [spec for spec in closure(targets) if not done(spec.directory(root))]
    if problem := what_lacks(root, todo, means):
        raise UserError(problem)
    outcomes = run_sweep(root, targets, engine=means.open(root, targets) if todo else None)
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    if failed:
        print(tabulate([(o.spec.title, o.status, o.error) for o in failed], headers=["run", "status", "why"]))
    return failed
