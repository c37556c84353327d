"""Pull workers that are jobs of a scheduler: SLURM through submitit, or this machine where there is no SLURM.

A job is `suite work PLAN`, nothing else. What SLURM is to be told beyond memory and the GPU it reads from its own variables
(SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_GRES, …), which take precedence over what is said here.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import submitit

from suite.common.errors import UserError
from suite.common.machine import available_cores
from suite.engine.making import MOST_DEATHS, Outcome, closure
from suite.engine.memory import GIB, host_memory_of
from suite.engine.pull_workers import PullWorkers
from suite.engine.rank_runs import ranks_of
from suite.engine.store import RunSpec
from suite.engine.tracking import Tracker

MINUTES = 24 * 60
"""After which a job is put into the queue again."""
CORES = 4
"""Of a job on a cluster."""
REQUEUED = 10_000
"""Times that a job may run out of its time."""
SECONDS_TO_STOP = 10.0
"""For jobs on this machine to give back what they hold."""


class SubmittedWorkers(PullWorkers):
    """So many jobs, each submitted again when it ends before the plan does."""

    def __init__(
        self, root: Path, targets: Sequence[RunSpec], workers: int, tracker: Tracker = "none", gpus: int = 1,
        cluster: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, targets)
        self.workers, self.job = workers, Worker(self.plan.absolute(), tracker, gpus)
        self.executor = submitit.AutoExecutor(self.plan.with_suffix(".jobs"), cluster, slurm_max_num_timeout=REQUEUED)
        specs = closure(targets)
        memory = max((size * ranks_of(spec, gpus) for spec in specs if (size := host_memory_of(spec))), default=None)
        on_gpu = any(spec.where.get("device", "cpu").startswith("cuda") for spec in specs)
        self.executor.update_parameters(
            name="suite", timeout_min=MINUTES, nodes=1, tasks_per_node=1, slurm_cpus_per_task=CORES * gpus,
            gpus_per_node=gpus if on_gpu else 0, **({"slurm_mem": f"{math.ceil(memory / GIB)}GB"} if memory else {}),
        )  # fmt: skip
        if self.executor.cluster != "slurm":
            self.job.threads = max(1, available_cores() // workers)
        self.jobs: list[Any] = []  # that are to be at work
        self.submitted: list[Any] = []  # and those that ended, which SLURM may have put into the queue again
        self.lost_in_a_row = 0

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`. Raises UserError if jobs end, one after another, and no run does."""
        ended = [job for job in self.jobs if job.done()]
        if found := super().wait(seconds):
            self.lost_in_a_row = 0
        elif ended:
            self._replace(ended)
        return found

    def _replace(self, ended: Sequence[Any]) -> None:
        self.lost_in_a_row += len(ended)
        self.jobs = [job for job in self.jobs if job not in ended]
        said = (ended[-1].stderr() or "").strip()
        why = f"{said.splitlines()[-1] if said else ended[-1].state} ({ended[-1].paths.stderr})"
        if self.lost_in_a_row >= MOST_DEATHS * self.workers:
            raise UserError(f"{self.lost_in_a_row} jobs in a row ended and nothing was made; the last one: {why}")
        print(f"{len(ended)} of {self.workers} jobs ended too early and start again: {why}", file=sys.stderr, flush=True)
        self._submit(len(ended))

    def _submit(self, count: int) -> None:
        array = self.executor.batch() if self.executor.cluster == "slurm" else contextlib.nullcontext()
        with _as_no_job(), array:
            jobs = [self.executor.submit(self.job) for _ in range(count)]
        self.jobs += jobs
        self.submitted += jobs

    def __enter__(self) -> Self:
        print(
            f"{self.workers} jobs ({self.executor.cluster}), which write to {self.executor.folder}; others may join them: "
            f"suite work {self.plan}", file=sys.stderr, flush=True,
        )  # fmt: skip
        self._submit(self.workers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None or self.executor.cluster == "slurm":  # here they end by themselves; there one may still be queued
            for job in self.submitted:
                job.cancel(check=False)
        until = time.monotonic() + SECONDS_TO_STOP
        while self.executor.cluster == "local" and time.monotonic() < until and not all(job.done() for job in self.jobs):
            time.sleep(0.1)


class Worker(submitit.helpers.Checkpointable):
    """What a job does; one that SLURM takes away, or whose time is over, is submitted again as it is."""

    def __init__(self, plan: Path, tracker: Tracker, gpus: int, threads: int = 0) -> None:
        self.plan, self.tracker, self.gpus, self.threads = plan, tracker, gpus, threads

    def __call__(self) -> None:
        """Says last why it ended, if the worker itself cannot."""
        program = [sys.executable, "-m", "suite.cli.main", "work", str(self.plan)]
        how = ["--threads", str(self.threads), "--gpus", str(self.gpus), "--tracker", self.tracker]
        with subprocess.Popen([*program, *how]) as worker:
            try:
                ended = worker.wait()
            except BaseException:  # SLURM takes the job away: what the worker holds is to be given back
                worker.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(SECONDS_TO_STOP)
                worker.kill()
                raise
        if ended < 0:
            print(f"the worker was ended by {signal.Signals(-ended).name}", file=sys.stderr)


@contextlib.contextmanager
def _as_no_job() -> Iterator[None]:
    """What is submitted inherits nothing of a job that this command may itself be; what the user tells sbatch stays."""
    of_jobs = [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SUBMITIT_")) and name != "SLURM_CONF"]
    hidden = {name: os.environ.pop(name) for name in of_jobs}
    try:
        yield
    finally:
        os.environ.update(hidden)
