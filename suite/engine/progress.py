"""Progress of a sweep and of the runs in its worker processes, which share one screen; a line a minute where there is none."""

import sys
from typing import Any, Protocol, Self

from tqdm import tqdm

LINE_EVERY_S = 60.0
NAMED = 8
"""Runs that a line names."""
_position = 0


class Watched(Protocol):
    """What is shown of a sweep (`suite.engine.clock.Clock`)."""

    todo: list[Any]
    ended: dict[str, str]

    @property
    def gone(self) -> float: ...
    @property
    def left(self) -> float: ...
    @property
    def stages(self) -> str: ...
    @property
    def running(self) -> list[Any]: ...


def set_position(position: int) -> None:
    """Which line below the sweep's own bar this process draws on."""
    global _position
    _position = position


def bar(total: int, unit: str, title: str, done: int = 0) -> Any:
    """A bar for one run, on a terminal only; it disappears when the run is done."""
    return tqdm(
        total=total, initial=done, unit=unit, desc=f"  {title[:38]:<38}", position=_position, leave=False, mininterval=0.5,
        disable=not sys.stderr.isatty(),
        bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}]",
    )  # fmt: skip


class Watch:
    """A sweep on the screen: time gone and left, and what each stage has done."""

    def __init__(self, clock: Watched) -> None:
        self.clock, self.next_line = clock, LINE_EVERY_S
        self.bar = tqdm(
            total=1.0, position=0, file=sys.stderr, disable=not sys.stderr.isatty(),
            bar_format="sweep {percentage:3.0f}%|{bar:20}| {desc}",
        )  # fmt: skip

    def show(self) -> None:
        """Draw what is known now."""
        clock, gone = self.clock, self.clock.gone
        if not self.bar.disable:
            left = clock.left
            self.bar.n = gone / max(gone + left, 1e-9)
            self.bar.set_description_str(
                f"{tqdm.format_interval(gone)} gone, {tqdm.format_interval(left)} left; {clock.stages}"
            )
        elif gone >= self.next_line:
            self.next_line = gone - gone % LINE_EVERY_S + LINE_EVERY_S
            running = [spec.title for spec in clock.running]
            more = f" and {len(running) - NAMED} more" if len(running) > NAMED else ""
            print(
                f"{tqdm.format_interval(gone)} gone, {tqdm.format_interval(clock.left)} left, {len(clock.ended)} of "
                f"{len(clock.todo)} runs done; now {'; '.join(running[:NAMED])}{more}", file=sys.stderr, flush=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
