"""How much better the preferred answer is: the four ratings of Touvron et al. 2023 (arXiv:2307.09288, sec. 3.1), as 0 to 3."""

import math
import re
from collections.abc import Mapping
from typing import Any

RATINGS = ("negligibly better or unsure", "slightly better", "better", "significantly better")
"""Names of the ratings 0 to 3."""
COLUMNS = ("rating", "preference_rating", "preference_strength", "strength")
"""What a column with a rating is called."""
NAMES = {
    "negligibly_better_or_unsure": 0, "negligibly_better_unsure": 0, "negligibly_better": 0, "unsure": 0, "negligible": 0,
    "no_preference": 0, "tie": 0, "slightly_better": 1, "slightly": 1, "better": 2, "significantly_better": 3,
    "significantly": 3, "much_better": 3,
}  # fmt: skip


def rating_of(value: Any) -> float:
    """0 (negligibly better or unsure) to 3 (significantly better), of a name or a number; NaN for anything else.

    The sign of a number is not read: where a scale runs from -3 to 3, it says which answer is better, which the columns of the
    answers say too.
    """
    if isinstance(value, str) and (name := re.sub(r"[\W_]+", "_", value.strip().lower()).strip("_")) in NAMES:
        return float(NAMES[name])
    try:
        number = abs(float(value)) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if number in range(len(RATINGS)) else math.nan


def rating_in(values: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """The rating of a row by the canonical names of its columns, and which column was read as one.

    None and None where there is no such column; NaN and None where what it holds is no rating (stars of a film, say).
    """
    found = {name: rating_of(values[name]) for name in COLUMNS if name in values}
    read = next((name for name, rating in found.items() if not math.isnan(rating)), None)
    return (found[read] if read else math.nan if found else None), read
