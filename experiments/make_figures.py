"""Redraw every committed figure from its records: no models, no torch, seconds.

Examples:
  python experiments/make_figures.py                        each figure where it lies, in results/
  python experiments/make_figures.py --out /tmp/figures     into folders of the same names
  python experiments/make_figures.py --results my/results   of your own runs
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from suite.cli.options import run_script
from suite.cli.ranges import Folder
from suite.common.errors import UserError
from suite.report.folder import OF_ONE_TABLE, redraw


@dataclass(frozen=True)
class Arguments:
    """Command line of the redrawing."""

    results: Folder = Path("results")
    """Folder of results folders."""
    out: Folder | None = None
    """Where the figures go; default: beside their records."""


def main(args: Arguments) -> int:
    folders = sorted(path for path in args.results.glob("*") if path.is_dir())
    found = [folder for folder in folders if any((folder / name).exists() for name in ("study.json", *OF_ONE_TABLE))]
    for folder in set(folders) - set(found):
        if any(folder.glob("*.svg")):
            print(f"{folder}: skipped, its records are of an older version; run its experiment again", file=sys.stderr)
    if not found:
        raise UserError(f"--results {args.results}: no results folder there; run an experiment first, see README.md")
    problems = 0
    for folder in found:
        try:
            for path in redraw(folder, args.out / folder.name if args.out else None):
                print(path)
        except UserError as error:  # the others can be drawn
            problems += 1
            print(f"error: {error}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
