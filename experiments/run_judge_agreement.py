"""Do judges agree with people? Table 2 of Rafailov et al. 2023 for your verdicts: win rates by rater, agreement, Cohen's κ.

Each file is one rater's verdicts on one matchup, as `suite judge run` writes them (verdicts.csv), or any CSV, JSONL or parquet
with the columns prompt_id and winner (policy, opponent or tie), and judge and matchup if they are to be told apart by more
than the file's name. Raters whose judge begins with "human" are people. Ties and contradictory orders are left out, as in the
paper; the paper's numbers stand beside.

Examples:
  python experiments/run_judge_agreement.py s/verdicts.csv c/verdicts.csv alice/verdicts.csv bob/verdicts.csv
  python experiments/run_judge_agreement.py gpt4.jsonl people.jsonl --humans people --out agreement
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from suite.analysis.records import write_table, write_text
from suite.cli.options import run_script
from suite.cli.ranges import File, Folder, Seed
from suite.common.errors import UserError
from suite.common.files import check_writable
from suite.report.agreement import agreement_of, agreement_page


@dataclass(frozen=True)
class Arguments:
    """Command line of the agreement table."""

    verdicts: Annotated[tuple[File, ...], tyro.conf.Positional]
    """Files of verdicts, at least two."""
    humans: str = ""
    """Comma-separated raters (their judge, or the file's name without ending) that are people too."""
    seed: Seed = 0
    """Of the bootstrap."""
    out: Folder = Path("agreement")
    """Folder for summary.md and agreement.csv."""


def main(args: Arguments) -> int:
    if len(args.verdicts) < 2:
        raise UserError("two files of verdicts or more are needed")
    check_writable(args.out)
    people = {name.strip() for name in args.humans.split(",") if name.strip()}
    agreement, alone = agreement_of(args.verdicts, people, seed=args.seed)
    write_table(args.out / "agreement.csv", agreement)
    text = agreement_page(agreement)
    write_text(args.out / "summary.md", text)
    print(f"{alone} matchups that one rater alone judged are left out\n" if alone else "", end="")
    print(f"{text}\nWritten to {args.out}: summary.md, agreement.csv")
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
