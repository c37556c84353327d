"""Numbers as a page carries them: few digits, and tables of policies by prompts as whole numbers of 16 bits."""

import base64
import math
from typing import Any

import numpy as np

ABSENT = 65535
"""In place of a number that is not known."""


def short(value: Any, digits: int = 6) -> Any:
    """A number with so many significant digits, whole ones without a point; None for what is none and for infinity."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    rounded = float(f"{number:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def shorts(values: Any, digits: int = 6) -> list[Any]:
    """Every value of a column."""
    return [short(value, digits) for value in values]


def quantised(values: np.ndarray) -> dict[str, Any]:
    """A table (policies, prompts) in steps of 1/65,534 of its range; NaN where a prompt has no number.

    Returns:
        `low` and `step`, with which a whole number k says low + k·step, and `data`: little-endian, row by row, base64; NaN is
        `ABSENT`.
    """
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    step = (high - low) / (ABSENT - 1) or 1.0
    whole = np.full(values.shape, ABSENT, dtype="<u2")
    finite = np.isfinite(values)
    whole[finite] = np.rint((values[finite] - low) / step)
    return {"low": low, "step": step, "data": base64.b64encode(whole.tobytes()).decode("ascii")}
