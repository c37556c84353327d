"""Progress bars with ETA that share one screen between the worker processes of a sweep."""

import sys
from typing import Any

from tqdm import tqdm

_position = 0


def set_position(position: int) -> None:
    """Which line below the sweep's own bar this process draws on."""
    global _position
    _position = position


def bar(total: int, unit: str, title: str, done: int = 0) -> Any:
    """A bar for one run, on a terminal only; it disappears when the run is done."""
    return tqdm(
        total=total, initial=done, unit=unit, desc=f"  {title[:38]:<38}", position=_position, leave=False, mininterval=0.5,
        disable=not sys.stderr.isatty(),
        bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]",
    )  # fmt: skip


def sweep_bar(total: float) -> Any:
    """The bar of a whole sweep, in shares of its estimated work."""
    return tqdm(
        total=total, desc="sweep", position=0, mininterval=1.0, file=sys.stderr,
        bar_format="{desc} {percentage:3.0f}%|{bar:30}| [{elapsed}<{remaining}]{postfix}",
    )  # fmt: skip
