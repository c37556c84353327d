"""Would other training seeds come to the same verdict? Disjoint sets of three seeds of one study, beside simulated ones.

Reads the records of a study of six seeds or more, asks the one rule of verdicts about each set of three on its own, and counts
how often two sets say different words; the share that such a study must expect comes from sets that are simulated with the
spread of the seeds at hand. A *better* in one set that is a *worse* in another is a fault to find.

Examples:
  python experiments/validation/run_replication.py results/imdb_frontier_replication
  python experiments/validation/run_replication.py results/imdb_frontier_core_grid --budgets 3,6
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from suite.analysis.equal_kl import BUDGETS, frontiers
from suite.analysis.records import read_results, write_table, write_text
from suite.analysis.replication import SIZE, changes, disjoint_sets, predicted_changes, words_of_sets
from suite.cli.options import made_here, parse_numbers, run_script
from suite.cli.ranges import Folder
from suite.common.errors import UserError
from suite.common.files import check_writable
from suite.report.page import page, table


@dataclass(frozen=True)
class Arguments:
    """Command line of the replication."""

    results: Annotated[Folder, tyro.conf.Positional]
    """Results folder of a frontier study of several seeds; the tables go there too."""
    against: str = "DPO"
    """The method that the others are compared with."""
    budgets: str = ",".join(f"{budget:g}" for budget in BUDGETS)
    """Comma-separated KLs in nats."""


def main(args: Arguments) -> int:
    check_writable(args.results)
    results, budgets = read_results(args.results), parse_numbers(args.budgets, "--budgets")
    found = frontiers(results.records, results.measurements)
    if args.against not in found:
        raise UserError(f"--against {args.against!r}: these results have {', '.join(found)}")
    seeds = sorted(set.intersection(*(set(frontier.seeds) for frontier in found.values())))
    sets = disjoint_sets(seeds)
    if len(sets) < 2:
        raise UserError(f"{args.results}: {len(seeds)} training seeds that all methods have, {2 * SIZE} are needed")
    words = words_of_sets(found, sets, against=args.against, budgets=budgets)
    own = {name: frontier.of(seeds) for name, frontier in found.items()}
    counted = changes(words).merge(
        predicted_changes(own, against=args.against, budgets=budgets), on=["kl_budget", "method"], how="left",
        suffixes=("", "_predicted"),
    )  # fmt: skip
    write_table(args.results / "replication.csv", counted)
    shown = [
        {
            "KL, nats": row["kl_budget"], f"minus {args.against}": row["method"], "words of the sets": row["words"],
            "pairs of sets": row["pairs"], "changed": f"{row['changed'] / row['pairs']:.0%}",
            "changed, simulated": f"{row['predicted']:.0%}", "better beside worse": row["reversed"],
        }
        for row in counted.to_dict("records")
    ]  # fmt: skip
    lead = (
        f"Sets of {SIZE} training seeds: {'; '.join(', '.join(map(str, some)) for some in sets)}. Each is asked on its own, on "
        f"the same {results.about['test_prompts']} test prompts."
    )
    text = page("Other seeds, the same verdict?", [("", made_here()), ("", lead), ("", table(shown))])
    write_text(args.results / "replication.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
