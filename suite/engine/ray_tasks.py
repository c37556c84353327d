"""Runs as tasks of a Ray cluster (Moritz et al. 2018, arXiv:1712.05889): one task each, wherever its memory fits.

Only Ray's core is used: the plan says what is next, the folder of runs what is done. Every node sees that folder, and this
code is installed on it. A task whose node, process or memory is gone is a lost run, which the sweep submits again.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray

from suite.common.errors import UserError, first_line
from suite.common.machine import quiet_libraries
from suite.engine.making import MOST_DEATHS, Outcome, closure, run_one
from suite.engine.memory import GIB, host_memory_of, memory_of
from suite.engine.plan_file import enter_plan, write_plan
from suite.engine.rank_runs import ranks_of
from suite.engine.store import RunSpec
from suite.engine.tracking import Tracker
from suite.engine.workload import Speed

SMALLEST_SHARE = 1 / 16
"""Of a GPU: so many processes share one without gain from more (docs/scaling.md)."""
SECONDS_TO_STOP = 10.0
"""For tasks to give back what they hold."""


class RayTasks:
    """The cluster of RAY_ADDRESS or of this machine; one of this machine alone is started if there is none.

    A task takes one CPU core, and of a GPU the share of its memory that the run needs by estimate.
    """

    most_deaths, alone, shared = MOST_DEATHS, False, False

    def __init__(self, root: Path, targets: Sequence[RunSpec], tracker: Tracker = "none", gpus: int = 1) -> None:
        self.plan, self.tracker, self.gpus = write_plan(root, targets).absolute(), tracker, gpus
        self.needs = {spec.key: needs_of(spec, gpus) for spec in closure(targets)}
        self.tasks: dict[Any, RunSpec] = {}

    @property
    def at_once(self) -> int:
        """As many as the cluster has room for, and one that waits, which is what makes a cluster grow that can."""
        there = ray.cluster_resources()
        shares = [need["num_gpus"] for need in self.needs.values() if need["num_gpus"]]
        return 1 + int(max(there.get("CPU", 0), there.get("GPU", 0) / min(shares) if shares else 0))

    def submit(self, spec: RunSpec) -> None:
        """See `Engine`."""
        task = ray.remote(_make).options(name=spec.title, max_retries=0, **self.needs[spec.key])
        self.tasks[task.remote(str(self.plan), spec.key, self.tracker, self.gpus)] = spec

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Engine`."""
        ended, _ = ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        return [self._outcome(task, self.tasks.pop(task)) for task in ended]

    def measure(self, sample: RunSpec) -> list[Speed]:
        """See `Engine`."""
        return []

    def _outcome(self, task: Any, spec: RunSpec) -> Outcome:
        try:
            error, outcome = ray.get(task)
        except ray.exceptions.RayTaskError as raised:
            return Outcome(spec, "failed", first_line(raised.cause))
        except ray.exceptions.RayError as lost:
            return Outcome(spec, "lost", first_line(lost))
        if error is not None:
            raise error
        return Outcome(spec, *outcome)

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ours = not ray.is_initialized()
        if self.ours:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self._say_what_is_missing()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self.tasks:
            ray.cancel(task)
        if self.tasks:
            ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=SECONDS_TO_STOP)
        if self.ours:
            ray.shutdown()

    def _say_what_is_missing(self) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for need, name, unit, word in (
            ("num_cpus", "CPU", 1, "CPU cores"), ("num_gpus", "GPU", 1, "GPUs"), ("memory", "memory", GIB, "GiB of memory"),
        ):  # fmt: skip
            needed = max(need_of.get(need, 0) for need_of in self.needs.values()) / unit
            most = max((node.get(name, 0) for node in nodes), default=0) / unit
            if needed > most:
                words = f"a run needs {needed:.3g} {word} and no node has more than {most:.3g}; it waits until one comes"
                print(f"Ray: {words}", file=sys.stderr, flush=True)


def needs_of(spec: RunSpec, gpus: int = 1) -> dict[str, float]:
    """What Ray is to keep free for a run: a core, memory in bytes, and a share of a GPU, or several whole ones.
    Raises UserError for a run that no GPU like the one here has memory for.
    """
    host = host_memory_of(spec)
    ranks = ranks_of(spec, gpus)
    needs: dict[str, float] = {"num_cpus": ranks, "num_gpus": 0, **({"memory": ranks * host} if host else {})}
    device = spec.where.get("device", "cpu")
    if device.startswith("cuda"):
        import torch

        whole, needed = float(torch.cuda.get_device_properties(device).total_memory), memory_of(spec, ranks)
        if needed and needed > whole:
            words = f"needs about {needed / GIB:.1f} GiB and a GPU here has {whole / GIB:.1f}"
            raise UserError(f"{spec.stage} {spec.title!r} {words}; try a smaller micro-batch (--micro-batch-size)")
        share = max(SMALLEST_SHARE, needed / whole) if needed else 1
        needs["num_gpus"] = ranks if ranks > 1 else share
    return needs


def _make(plan: str, key: str, tracker: Tracker, gpus: int) -> tuple[Exception | None, tuple[str, str]]:
    """In a process of the cluster, which is told by SIGTERM that its node goes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        root, specs = _opened(plan)
        outcome = run_one(root, specs[key], tracker, gpus)
    except (UserError, OSError) as error:  # as they are, and not as Ray wraps them
        return error, ("", "")
    except KeyboardInterrupt:
        return None, ("lost", "told to stop")
    return None, (outcome.status, outcome.error)


@lru_cache(maxsize=1)
def _opened(plan: str) -> tuple[Path, dict[str, RunSpec]]:
    import torch

    torch.set_num_threads(1)
    quiet_libraries()
    root, targets = enter_plan(Path(plan))
    return root, {spec.key: spec for spec in closure(targets)}
