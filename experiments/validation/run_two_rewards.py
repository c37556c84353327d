"""Two rewards or one: helpfulness and safety models combined, beside one model of all pairs, where the two conflict.

On the exact world (`suite.check.two_rewards`): the truth is known, and every learned reward can be optimised without error.

Examples:
  python experiments/validation/run_two_rewards.py                              the committed page, a minute on one core
  python experiments/validation/run_two_rewards.py --seeds 3 --pairs 100 --out two_rewards_quick
"""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import torch
from tqdm import tqdm

from suite.analysis.records import write_table, write_text
from suite.check.two_rewards import simulate
from suite.cli.options import RESULTS, made_here, parse_integers, run_script
from suite.cli.ranges import Folder, whole
from suite.common.files import check_writable
from suite.report.two_rewards import draw, summary


@dataclass(frozen=True)
class Arguments:
    """Command line of the simulation."""

    seeds: Annotated[int, whole(3)] = 20
    """Worlds, with rewards and pairs of their own."""
    pairs: str = "300,2400"
    """Of each kind, comma-separated; as many as there can be are always there."""
    out: Folder = RESULTS / "two_rewards"
    """Where table and figure go."""


def main(args: Arguments) -> int:
    pairs = parse_integers(args.pairs, "--pairs", example="300,2400", least=40)
    check_writable(args.out)
    torch.set_num_threads(1)  # tiny models; and the same sums each time
    seeds = tqdm(range(args.seeds), unit="world")
    found = pd.DataFrame([row for seed in seeds for row in simulate(seed, pairs=pairs)])
    write_table(args.out / "two_rewards.csv", found)
    draw(args.out, args.out)
    text = summary(made_here(), found)
    write_text(args.out / "summary.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
