"""Run many specifications: each as soon as its inputs are done, in worker processes that die with their parent."""

from __future__ import annotations

import ctypes
import errno
import logging
import multiprocessing
import os
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

from suite.errors import UserError
from suite.files import write_atomically
from suite.runs import progress
from suite.runs.run_store import RunSpec, open_run, status
from suite.runs.tracking import Tracker, check_tracker


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `cached`, `done`, `failed` or `skipped` (an input failed)."""

    spec: RunSpec
    status: str
    seconds: float = 0.0
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

    Raises:
        UserError: Bad input: a held run, a malformed row.
        OSError: No permission, or the disk is full.
    """
    from suite.runs.text_stages import STAGES

    began = time.monotonic()
    try:
        with open_run(root, spec, tracker) as run:
            if run.done:
                return Outcome(spec, "cached")
            STAGES[spec.stage].function(run)
            run.finish()
        return Outcome(spec, "done", time.monotonic() - began)
    except (UserError, PermissionError):
        raise  # the user's to mend (a held run, a bad row): stop the sweep and say so
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk, too
        log = spec.directory(root) / "error.log"
        write_atomically(log, lambda path: path.write_text(traceback.format_exc()))
        return Outcome(spec, "failed", time.monotonic() - began, f"{type(error).__name__}: {error} (log: {log})")


def run_sweep(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> Iterator[Outcome]:
    """Make `targets` and all they need; yields each outcome as it comes.

    With one worker everything happens in this process, on all its threads; with more, each worker gets an equal share of
    the threads. Runs are idempotent: after a failure or a kill, the same call goes on.
    """
    specs = closure(targets)
    failed: set[str] = set()
    todo: list[RunSpec] = []
    for spec in specs:
        if (spec.directory(root) / "DONE").exists():
            yield Outcome(spec, "cached")
        else:
            todo.append(spec)
    if not todo:
        return
    with progress.sweep_bar(sum(spec.cost for spec in todo)) as bar:
        one = partial(run_one, root, tracker=tracker)
        for outcome in _run_here(one, todo, failed) if workers == 1 else _run_in_pool(one, todo, failed, workers):
            bar.set_postfix_str(f" last: {outcome.spec.title} {outcome.status}")
            bar.update(outcome.spec.cost)
            yield outcome


def _run_here(one: Callable[[RunSpec], Outcome], todo: list[RunSpec], failed: set[str]) -> Iterator[Outcome]:
    progress.set_position(1)
    for spec in todo:
        outcome = _skipped(spec, failed) or one(spec)
        if outcome.status in ("failed", "skipped"):
            failed.add(spec.key)
        yield outcome


def _run_in_pool(one: Callable[[RunSpec], Outcome], todo: list[RunSpec], failed: set[str], workers: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    slots = context.Queue()
    for position in range(1, workers + 1):
        slots.put(position)
    threads = max(1, available_cores() // workers)
    waiting, finished, running = list(todo), set[str](), dict[Future, RunSpec]()
    pending_keys = {spec.key for spec in todo}
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(slots, threads, os.getpid()))
    try:
        while waiting or running:
            ready = [s for s in waiting if all(i.key in finished or i.key not in pending_keys for i in s.inputs.values())]
            for spec in ready[: workers + 1 - len(running)]:  # one in reserve, so that no worker waits
                waiting.remove(spec)
                if skipped := _skipped(spec, failed):
                    failed.add(spec.key)
                    finished.add(spec.key)
                    yield skipped
                else:
                    running[pool.submit(one, spec)] = spec
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spec = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    raise UserError(
                        "a worker process was killed (out of memory?); start the same command again to go on, "
                        "with --workers 1 if it happens again"
                    ) from error
                finished.add(spec.key)
                if outcome.status == "failed":
                    failed.add(spec.key)
                yield outcome
    except BaseException:  # stop now: what is not done is resumed by the next start
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _skipped(spec: RunSpec, failed: set[str]) -> Outcome | None:
    bad = [needed.title for needed in spec.inputs.values() if needed.key in failed]
    return Outcome(spec, "skipped", error=f"needs {bad[0]}, which failed") if bad else None


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(asked: int, device: str) -> int:
    """Processes that share the machine: as many as asked for; of 0 one per core up to 8, and one on a GPU.

    Raises:
        UserError: Fewer than 0.
    """
    if asked < 0:
        raise UserError(f"--workers {asked}: expected 0 (choose for me) or more")
    return asked or (min(8, available_cores()) if device == "cpu" else 1)


def usable_device(name: str) -> str:
    """The device of that name; of "auto" the GPU if there is one.

    Raises:
        UserError: It cannot be used here.
    """
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


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


def quiet_libraries() -> None:
    """No weight-loading bars and no advice from transformers in the middle of ours; errors still come through."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def print_plan(root: Path, targets: Sequence[RunSpec], *, workers: int) -> None:
    """Every run of a plan: stage, title, whether it is cached, resumes, is to run, or has changed code; and what it will take.

    The tokens (a trained one counts 3) and GiB of memory are estimates.
    """
    from suite.runs.resources import GIB, host_memory_of, memory_of, what_cannot_fit

    def gib(memory: float | None) -> str:
        return "–" if memory is None else f"{memory / GIB:.1f}"

    specs = closure(targets)
    on_gpu = any(spec.where.get("device", "cpu").startswith("cuda") for spec in specs)
    rows, todo = [], []
    for spec in specs:
        state = status(root, spec)
        memory = (gib(memory_of(spec)), gib(host_memory_of(spec))) if on_gpu else (gib(memory_of(spec)),)
        rows.append((spec.stage, spec.title, state, f"{spec.cost:,.0f}", *memory, spec.key[:16]))
        todo += [spec] if state != "cached" else []
    headers = ["stage", "run", "status", "tokens", *(("GPU, GiB", "host, GiB") if on_gpu else ("GiB",)), "key"]
    align = ["left"] * 3 + ["right"] * (len(headers) - 4) + ["left"]
    print(tabulate(rows, headers=headers, colalign=align, disable_numparse=True))
    counts = Counter(row[2] for row in rows)
    print(f"\n{len(rows)} runs: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + f" ({root})")
    problem = what_cannot_fit(todo, workers=workers)
    print(
        (f"does not fit here: {problem}" if problem else f"{workers} at a time fit into the memory that is free here") + "\n",
        flush=True,
    )


def run_all(root: Path, targets: Sequence[RunSpec], *, workers: int, tracker: Tracker = "none") -> list[Outcome]:
    """Make all targets under one progress bar; prints and returns those that failed.

    Raises:
        UserError: One needs more memory than is free, or the tracker is not installed; before anything is computed.
    """
    from suite.runs.resources import refuse_what_cannot_fit

    quiet_libraries()
    check_tracker(tracker)
    todo = [spec for spec in closure(targets) if status(root, spec) != "cached"]
    refuse_what_cannot_fit(todo, workers=workers)
    outcomes = run_sweep(root, targets, workers=workers, tracker=tracker)
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    if failed:
        print(tabulate([(o.spec.title, o.status, o.error) for o in failed], headers=["run", "status", "why"]))
    return failed
