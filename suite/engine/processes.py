"""Runs made on this machine: in this process, or in worker processes that share its cores and die with it."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from suite.common.errors import UserError
from suite.common.machine import available_cores, quiet_libraries
from suite.engine import progress, speed
from suite.engine.making import Outcome, run_one
from suite.engine.store import RunSpec
from suite.engine.tracking import Tracker
from suite.engine.workload import Speed

SECONDS_TO_STOP = 10.0
"""For a worker to give back what it holds."""


class Here:
    """One run at a time, in this process, on all its threads."""

    at_once, most_deaths, alone, shared = 1, 2, True, False

    def __init__(self, root: Path, tracker: Tracker = "none", gpus: int = 1) -> None:
        self.one: Callable[[RunSpec], Outcome] = partial(run_one, root, tracker=tracker, gpus=gpus)
        self.submitted: list[RunSpec] = []

    def submit(self, spec: RunSpec) -> None:
        """See `Engine`."""
        self.submitted.append(spec)

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`."""
        return [self.one(self.submitted.pop(0))]

    def measure(self, sample: RunSpec) -> list[Speed]:
        """See `Engine`."""
        return [speed.measured(sample)]

    def __enter__(self) -> Self:
        progress.set_position(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class Processes:
    """So many worker processes, each with an equal share of the threads. One that dies takes no other with it."""

    most_deaths, alone, shared = 2, True, False

    def __init__(self, root: Path, workers: int, tracker: Tracker = "none", gpus: int = 1) -> None:
        self.root, self.at_once = root, workers
        self.one = partial(run_one, root, tracker=tracker, gpus=gpus)
        self.workers: list[_Worker] = []

    def submit(self, spec: RunSpec) -> None:
        """See `Engine`."""
        self._give(spec, partial(self.one, spec))

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`."""
        answers = self._answers(seconds)
        return [Outcome(spec, "lost", found.why) if isinstance(found, _Died) else found for spec, found in answers]

    def measure(self, sample: RunSpec) -> list[Speed]:
        """See `Engine`."""
        for _ in range(self.at_once):
            self._give(sample, partial(speed.measured, sample))
        found = list[Any]()
        while len(found) < self.at_once:
            found += [answer for _, answer in self._answers(None)]
        return [answer for answer in found if not isinstance(answer, _Died)]

    def _give(self, spec: RunSpec, task: Callable[[], Any]) -> None:
        self.workers = [worker for worker in self.workers if worker.spec or worker.process.is_alive()]
        idle = next((worker for worker in self.workers if worker.spec is None), None)
        if idle is None:
            taken = {worker.position for worker in self.workers}
            position = next(place for place in range(1, self.at_once + 1) if place not in taken)
            idle = _Worker(position, threads=max(1, available_cores() // self.at_once))
            self.workers.append(idle)
        idle.spec = spec
        with contextlib.suppress(OSError):  # it died just now, which is found out when it is asked
            idle.line.send(task)

    def _answers(self, seconds: float | None) -> list[tuple[RunSpec, Any]]:
        """What workers have answered; `_Died` for one that will not."""
        found: list[tuple[RunSpec, Any]] = []
        busy = {worker.line: worker for worker in self.workers if worker.spec}
        for line in connection.wait(list(busy), timeout=seconds):
            worker = busy[line]  # type: ignore[index]
            assert worker.spec is not None
            try:
                error, answer = worker.line.recv()
            except (EOFError, OSError):
                self.workers.remove(worker)
                found.append((worker.spec, _Died(worker.end())))
                continue
            if error is not None:
                raise error
            found.append((worker.spec, answer))
            worker.spec = None
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self.workers:
            if kind is not None:  # stop now: what is not done is resumed by the next start
                worker.process.terminate()
            worker.line.close()  # which ends one that waits for more
        for worker in self.workers:
            worker.process.join(timeout=SECONDS_TO_STOP if kind else None)
            worker.process.kill()
            worker.process.join()


@dataclass(frozen=True)
class _Died:
    why: str


class _Worker:
    """A process that does one thing after another."""

    def __init__(self, position: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.position = position
        self.spec: RunSpec | None = None  # what it works on
        self.line, other_end = context.Pipe()
        arguments = (other_end, _start_worker, position, threads, os.getpid())
        self.process = context.Process(target=_serve, args=arguments)
        self.process.start()
        other_end.close()  # so that the line breaks when the process ends

    def end(self) -> str:
        """How a process ended that has stopped answering."""
        self.process.join(timeout=10)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(line: connection.Connection, start: Callable[..., None], *arguments: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the sweep, by SIGTERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # nothing more to do; told to stop, and what was held is given back
        start(*arguments)
        while True:
            task = line.recv()
            try:
                line.send((None, task()))
            except (UserError, OSError) as error:
                line.send((error, None))


def _start_worker(position: int, threads: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the parent, so that its leases are free
        if os.getppid() != parent:
            os._exit(1)
    import torch

    torch.set_num_threads(threads)
    quiet_libraries()
    progress.set_position(position)
