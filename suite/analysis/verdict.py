"""Better, worse, equivalent or not resolved: the one rule, for every page and table, and its words."""

from typing import Literal

Verdict = Literal["better", "worse", "equivalent", "not resolved"]
FEWEST_SEEDS = 3
"""Training seeds below which there is no verdict on methods, only on the policies at hand."""
MARGIN = 0.02
"""Differences of reward or win rate that count as none."""
SAME = "the same policies"
"""In place of a verdict, where all numbers are: a difference of 0 by construction."""
WORDS: dict[Verdict, str] = {
    "better": "better than", "worse": "worse than", "equivalent": "equivalent to", "not resolved": "not resolved from",
}  # fmt: skip
TURNED: dict[Verdict, Verdict] = {
    "better": "worse", "worse": "better", "equivalent": "equivalent", "not resolved": "not resolved",
}  # fmt: skip
"""The same seen from the other side."""


def verdict_of(low: float, high: float, *, margin: float = MARGIN) -> Verdict:
    """What an interval of a difference, corrected for all comparisons of its table, says.

    Args:
        low, high: Bounds of the corrected interval; NaN where there is none.
        margin: *equivalent* only if the interval lies within ± this.

    Returns:
        *better* if it lies above 0, *worse* if below, *equivalent* if it holds 0 and lies within the margin; all else, and no
        interval, is *not resolved*, and so is one of no width at 0: a sample without variance shows no equivalence. An interval
        that lies above 0 and within the margin is *better*: a small difference is one.
    """
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equivalent" if -margin <= low < high <= margin else "not resolved"


def word_of(low: float, high: float, *, seeds: int, searched: bool, same: bool = False) -> str:
    """The word for a difference of two methods, or why there is none.

    Args:
        low, high: See `verdict_of`.
        seeds: Training seeds behind it; fewer than `FEWEST_SEEDS` speak of the policies at hand.
        searched: The learning rates of both methods were searched as the others' were.
        same: All their numbers are the same, which is so by construction only.
    """
    if seeds < FEWEST_SEEDS:
        return "one seed: these policies" if seeds == 1 else f"{seeds} seeds: these policies"
    if not searched:
        return "rate not searched"
    return SAME if same else verdict_of(low, high)
