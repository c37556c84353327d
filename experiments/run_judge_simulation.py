"""Judges of known bias: what both orders and the length-controlled rate mend, and what they do not.

A simulated judge compares answers of which the truth is known: on every prompt the policy's wins with the same probability at
equal length and in a neutral order. Two defects are put in, one at a time. Position: the judge names the first answer more
often, by a fixed amount. Length: the longer answer's log-odds are raised with the difference, and the policy is the longer one.
Each number of the table is an average over replications; coverage is the share of 95 % intervals that hold the truth.

Examples:
  python experiments/run_judge_simulation.py                          the committed figures, some minutes on one core
  python experiments/run_judge_simulation.py --replications 20 --out judge_quick
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy.special import expit, logit

from suite.errors import one_line_errors
from suite.evaluation.win_rate import WinRate, verdict_table, win_rate
from suite.figures.judge_simulation import draw_all
from suite.files import check_writable, write_atomically
from suite.judges.judging import Comparison, Question, Verdict

RESULTS = Path(__file__).parent.parent / "results"
TRUTH = 0.6
POSITION_BIASES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
LENGTH_BIASES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
ORDERS: dict[str, list[bool | None]] = {
    "policy always first": [False], "random order": [None], "both orders": [False, True],
}  # fmt: skip
ESTIMATES: dict[str, Callable[[WinRate], Any]] = {
    "win rate": lambda result: result.win_rate, "length-controlled": lambda result: result.length_controlled,
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Command line of the simulation."""

    prompts: int = 256
    """Comparisons of each replication."""
    replications: int = 100
    """Of every point."""
    seed: int = 0
    out: Path = RESULTS / "judge_simulation"
    """Where table and figures go."""


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


def simulate(bias: str, size: float, orders: str, arguments: Arguments) -> list[dict[str, Any]]:
    """Mean, width and coverage of each estimate of the win rate over the replications."""
    found: dict[str, list[Any]] = {name: [] for name in ESTIMATES}
    for replication in range(arguments.replications):
        rng = np.random.default_rng([arguments.seed, replication])
        table = judged(comparisons(arguments.prompts, rng), orders, rng, **{bias: size})
        result = win_rate(table, seed=replication)
        for name, read in ESTIMATES.items():
            found[name].append(read(result))
    rows = []
    for name, intervals in found.items():
        means = np.array([i.mean for i in intervals])
        rows.append(
            {
                "bias": bias, "size": size, "orders": orders, "estimate": name, "mean": means.mean(),
                "standard_error": means.std(ddof=1) / np.sqrt(len(means)),
                "width": np.mean([i.high - i.low for i in intervals]),
                "coverage": np.mean([i.low <= TRUTH <= i.high for i in intervals]), "n": len(means), "truth": TRUTH,
            }
        )  # fmt: skip
    return rows


@one_line_errors
def main() -> int:
    from tqdm import tqdm

    arguments = tyro.cli(Arguments, description=__doc__)
    check_writable(arguments.out)
    jobs = [("position", size, orders) for size in POSITION_BIASES for orders in ORDERS]
    jobs += [("length", size, "both orders") for size in LENGTH_BIASES]
    rows = [row for job in tqdm(jobs, unit="point") for row in simulate(*job, arguments)]
    table = pd.DataFrame(rows)
    write_atomically(arguments.out / "judges.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    draw_all(arguments.out)
    page = report(table, arguments)
    write_atomically(arguments.out / "summary.md", lambda path: path.write_text(page))
    print(page)
    return 0


def report(table: pd.DataFrame, arguments: Arguments) -> str:
    """The page beside the figures."""
    columns = {"mean": "mean estimate", "standard_error": "± se", "width": "interval's width", "coverage": "holds the truth"}
    shown = table.drop(columns=["n", "truth"]).rename(columns=columns)
    return (
        f"# Judges of known bias\n\n`{' '.join(['python experiments/run_judge_simulation.py', *sys.argv[1:]])}`  \n"
        f"{date.today()}, {platform.machine()}\n\n"
        f"True win rate {TRUTH}; {arguments.prompts} prompts a replication, {arguments.replications} replications a row. "
        f"Nominal coverage 0.95.\n\n{shown.to_markdown(index=False, floatfmt='.3f')}\n\n"
        "![position](position.png)\n![length](length.png)\n"
    )


if __name__ == "__main__":
    sys.exit(main())
