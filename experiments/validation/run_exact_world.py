"""The exact world in numbers: KL estimators, DPO's error by number of pairs, and what hard labels do.

Everything is compared with its enumerated value: six tokens, three steps, 156 completions per prompt. No data, no network.

Examples:
  python experiments/validation/run_exact_world.py         the committed tables and figure, a few minutes on one core
  python experiments/validation/run_exact_world.py --replications 200 --seeds 2 --out results/exact_world_quick    a smaller one
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from suite.analysis.records import write_table, write_text
from suite.check.exact_tables import error_table, kl_table, labels_table
from suite.check.exact_world import ExactWorld
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import Count, Folder, whole
from suite.common.files import check_writable
from suite.engine.store import provenance
from suite.report.exact_world import TABLES, draw, summary


@dataclass(frozen=True)
class Arguments:
    """Command line of the exact-world tables."""

    replications: Annotated[int, whole(2)] = 1000
    """Of every KL estimate."""
    seeds: Count = 5
    """Data sets per number of pairs."""
    out: Folder = RESULTS / "exact_world"
    """Where tables and figure go."""


def main(args: Arguments) -> int:
    check_writable(args.out)
    torch.set_num_threads(1)  # tiny models; and the same sums each time
    world = ExactWorld()
    found = kl_table(world, args.replications), error_table(world, args.seeds), labels_table(world)
    for name, rows in zip(TABLES, found, strict=True):
        write_table(args.out / f"{name}.csv", rows)
    draw(args.out, args.out)
    text = summary(made_here(provenance()["packages"]), *found)
    write_text(args.out / "summary.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
