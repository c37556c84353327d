"""When will a sweep be done? Seconds of every run by one formula, measured speeds, and what has been seen so far."""

import time
from collections import Counter
from collections.abc import Sequence

from suite.engine import speed
from suite.engine.store import RunSpec
from suite.engine.workload import Speed

WORTH_MEASURING = 60.0
"""A sweep that is believed to take so many seconds is worth ten of measuring."""
TRUSTED = 30.0
"""So many seconds of runs weigh as much as the formula."""


class Clock:
    """What a sweep has done and has yet to do, in seconds of its workers. Runs are given inputs first."""

    def __init__(self, todo: Sequence[RunSpec], workers: int) -> None:
        self.todo, self.workers, self.began = list(todo), workers, time.monotonic()
        self.started: dict[str, float] = {}
        self.ended: dict[str, str] = {}
        self.expected = self.taken = 0.0  # of runs that are done
        self.next: dict[str, list[RunSpec]] = {}
        for spec in self.todo:
            for needed in {needed.key for needed in spec.inputs.values()}:
                self.next.setdefault(needed, []).append(spec)
        self._believe(speed.assumed(self.todo))

    @property
    def worth_measuring(self) -> RunSpec | None:
        """The run whose model, lengths and arithmetic are to be measured, if the sweep is long enough for that."""
        if sum(map(self.seconds, self.todo)) < WORTH_MEASURING * self.workers:
            return None
        return max(self.todo, key=lambda spec: (spec.work.trained > 0, self.seconds(spec)))

    def measured(self, speeds: Sequence[Speed]) -> None:
        """Believe these from now on."""
        self._believe(speed.mean(speeds))

    def _believe(self, found: Speed) -> None:
        self.speed, self._chains = found, dict[str, float]()
        for spec in reversed(self.todo):  # inputs come first in it
            waiting = (self._chains[after.key] for after in self.next.get(spec.key, ()))
            self._chains[spec.key] = self.seconds(spec) + max(waiting, default=0.0)

    def seconds(self, spec: RunSpec) -> float:
        """What the formula says of a run."""
        return self.speed.seconds(spec.work)

    def chain(self, spec: RunSpec) -> float:
        """Seconds of a run and of the longest chain of runs that wait for it."""
        return self._chains[spec.key]

    def start(self, spec: RunSpec) -> None:
        self.started.setdefault(spec.key, time.monotonic())

    def end(self, spec: RunSpec, status: str) -> None:
        self.ended[spec.key] = status
        if status == "done":
            self.expected += self.seconds(spec)
            self.taken += time.monotonic() - self.started[spec.key]

    @property
    def running(self) -> list[RunSpec]:
        return [spec for spec in self.todo if spec.key in self.started and spec.key not in self.ended]

    @property
    def left(self) -> float:
        """Seconds until the sweep is done: the work that is left over all workers, or the longest chain of it."""
        now, slower = time.monotonic(), (self.taken + TRUSTED) / (self.expected + TRUSTED)
        rest, longest = 0.0, 0.0
        for spec in self.todo:
            if spec.key not in self.ended:
                gone = now - self.started[spec.key] if spec.key in self.started else 0.0
                rest += max(0.0, slower * self.seconds(spec) - gone)
                longest = max(longest, slower * self.chain(spec) - gone)
        return max(rest / self.workers, longest)

    @property
    def gone(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def stages(self) -> str:
        """How many runs of each stage are done, of those that have any left or running."""
        every, done = Counter(s.stage for s in self.todo), Counter(s.stage for s in self.todo if s.key in self.ended)
        return ", ".join(f"{stage} {done[stage]}/{count}" for stage, count in every.items() if done[stage] < count)
