"""Engines: what makes the runs of a sweep. A sweep submits what is ready and waits for outcomes, whoever makes them where."""

from types import TracebackType
from typing import Protocol, Self

from suite.engine.making import Outcome
from suite.engine.store import RunSpec
from suite.engine.workload import Speed


class Engine(Protocol):
    """A place where runs are made, opened and closed as a context; closed by an exception, it stops what it makes.

    Attributes:
        most_deaths: A run at which so many processes died has failed.
        alone: Runs share the memory of one machine: one at which a process died is made again with nothing beside it.
        shared: Others make runs of the same plan, so that one that is held is no news.
    """

    most_deaths: int
    alone: bool
    shared: bool

    @property
    def at_once(self) -> int:
        """So many runs are submitted at a time."""
        ...

    def submit(self, spec: RunSpec) -> None:
        """Have a run made. Its inputs are done, and no more than `at_once` are submitted and without outcome."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of submitted runs that ended since the last call; waits at most so long, or as long as a run takes, for
        the first. A run whose process died is `lost`. Raises what the run raised, a UserError or an OSError.
        """
        ...

    def measure(self, sample: RunSpec) -> list[Speed]:
        """How fast the machines are with a run's models, of each process; empty if that is not known before."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
