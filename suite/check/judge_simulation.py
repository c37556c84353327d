"""Judges of known bias: simulated verdicts of which the truth is known, and what win rates make of them.

On every prompt the policy's answer wins with the same probability at equal length and in a neutral order. Two defects are put
in, one at a time. Position: the judge names the first answer more often, by a fixed amount. Length: the longer answer's
log-odds are raised with the difference, and the policy is the longer one.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from suite.data.comparisons import Comparison, Question, Verdict
from suite.evaluation.win_rate import verdict_table, win_rate

TRUTH = 0.6
ORDERS: dict[str, list[bool | None]] = {
    "policy always first": [False], "random order": [None], "both orders": [False, True],
}  # fmt: skip
ESTIMATES = {"win rate": "win_rate", "length-controlled": "length_controlled"}
"""Name → field of `WinRate`."""
POINTS = [("position", size, orders) for size in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25) for orders in ORDERS]
POINTS += [("length", size, "both orders") for size in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)]
"""Bias, its size, and the orders that are asked."""


def comparisons(count: int, rng: np.random.Generator) -> list[Comparison]:
    """The policy's answers are the longer ones, by 80 ± 100 characters."""
    lengths = np.maximum(1, np.round(300 + rng.normal(80, 100, count))).astype(int)
    return [Comparison(str(i), "", "x" * length, "y" * 300) for i, length in enumerate(lengths)]


def judged(
    asked: list[Comparison], orders: str, rng: np.random.Generator, *, position: float = 0.0, length: float = 0.0
) -> pd.DataFrame:
    """Verdicts of a judge that names the policy with probability σ(logit(truth) + length·d), d = difference / 100 characters.

    `position` is added to the probability of whoever stands first.
    """
    questions = [Question(c, bool(rng.integers(2)) if swap is None else swap) for c in asked for swap in ORDERS[orders]]
    verdicts: list[Verdict] = []
    for question in questions:
        difference = (len(question.comparison.policy) - len(question.comparison.opponent)) / 100
        wins = expit(logit(TRUTH) + length * difference)
        first = (1 - wins if question.swapped else wins) + position
        verdicts.append("A" if rng.random() < first else "B")
    return verdict_table(questions, verdicts)


def simulate(bias: str, size: float, orders: str, *, prompts: int, replications: int, seed: int) -> list[dict[str, Any]]:
    """Mean, width and coverage of each estimate of the win rate over the replications."""
    results = []
    for replication in range(replications):
        rng = np.random.default_rng([seed, replication])
        table = judged(comparisons(prompts, rng), orders, rng, **{bias: size})
        results.append(win_rate(table, seed=replication))
    rows = []
    for name, field in ESTIMATES.items():
        means, low, high, _ = np.array([getattr(result, field) for result in results]).T
        rows.append(
            {"bias": bias, "size": size, "orders": orders, "estimate": name, "mean": means.mean(),
             "standard_error": means.std(ddof=1) / np.sqrt(replications), "width": np.mean(high - low),
             "coverage": np.mean((low <= TRUTH) & (high >= TRUTH)), "n": replications, "truth": TRUTH}
        )  # fmt: skip
    return rows
