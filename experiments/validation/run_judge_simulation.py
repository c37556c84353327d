"""Judges of known bias: what both orders and the length-controlled rate mend, and what they do not.

A simulated judge compares answers of which the truth is known; it prefers a position, or the longer answer, by a known amount
(`suite.check.judge_simulation`). Each number of the table is an average over replications; coverage is the share of 95 %
intervals that hold the truth.

Examples:
  python experiments/validation/run_judge_simulation.py                          the committed figures, some minutes on one core
  python experiments/validation/run_judge_simulation.py --replications 20 --out judge_quick
"""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from tqdm import tqdm

from suite.analysis.records import write_table, write_text
from suite.check.judge_simulation import POINTS, simulate
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import Count, Folder, Seed, whole
from suite.common.files import check_writable
from suite.report.judge_simulation import draw, summary


@dataclass(frozen=True)
class Arguments:
    """Command line of the simulation."""

    prompts: Annotated[int, whole(2)] = 256
    """Comparisons of each replication."""
    replications: Count = 100
    """Of every point."""
    seed: Seed = 0
    out: Folder = RESULTS / "judge_simulation"
    """Where table and figures go."""


def main(args: Arguments) -> int:
    check_writable(args.out)
    rows = []
    for point in tqdm(POINTS, unit="point"):
        rows += simulate(*point, prompts=args.prompts, replications=args.replications, seed=args.seed)
    found = pd.DataFrame(rows)
    write_table(args.out / "judges.csv", found)
    draw(args.out, args.out)
    text = summary(made_here(), found, prompts=args.prompts)
    write_text(args.out / "summary.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
