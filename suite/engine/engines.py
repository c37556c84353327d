"""The engines, by name, and what else is to be said of how runs are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.common.errors import UserError
from suite.engine.engine import Engine
from suite.engine.processes import Here, Processes
from suite.engine.pull_workers import PullWorkers
from suite.engine.store import RunSpec
from suite.engine.tracking import Tracker

EngineName = Literal["processes", "workers", "submitit", "ray"]
"""processes: this one, or worker processes of this machine; workers: whoever is started with the plan; submitit: the same, as
jobs of SLURM; ray: tasks of a Ray cluster.
"""


@dataclass(frozen=True)
class Means:
    """With what runs are made; nothing here is part of a key."""

    workers: int = 1  # so many at a time, where the engine makes them itself, or starts who does
    tracker: Tracker = "none"  # where training metrics go beside `metrics.jsonl`
    engine: EngineName = "processes"
    gpus: int = 1  # of each run that trains

    @property
    def here(self) -> bool:
        """Whether this machine's memory is what the runs need."""
        return self.engine == "processes"

    def open(self, root: Path, targets: Sequence[RunSpec]) -> Engine:
        """The engine, to make `targets` and all they need. Raises UserError if what it needs is not installed."""
        if self.engine == "workers":
            return PullWorkers(root, targets)
        if self.engine == "processes":
            one = self.workers == 1
            return Here(root, self.tracker, self.gpus) if one else Processes(root, self.workers, self.tracker, self.gpus)
        try:
            if self.engine == "ray":
                from suite.engine.ray_tasks import RayTasks

                return RayTasks(root, targets, self.tracker, self.gpus)
            from suite.engine.submitted_workers import SubmittedWorkers

            return SubmittedWorkers(root, targets, self.workers, self.tracker, self.gpus)
        except ModuleNotFoundError as error:
            if error.name != self.engine:
                raise
            raise UserError(f'--engine {self.engine}: it is not installed; pip install "rlhf-vs-dpo[{self.engine}]"') from error
