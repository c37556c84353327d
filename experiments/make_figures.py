"""Redraw every committed figure from its records: no models, no torch, seconds.

Examples:
  python experiments/make_figures.py                        each figure where it lies, in results/
  python experiments/make_figures.py --out /tmp/figures     into folders of the same names
  python experiments/make_figures.py --results my/results   of your own runs
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from suite.errors import UserError, one_line_errors
from suite.figures import best_of_n, exact_world, judge_simulation, results, temperature, win_rates

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Arguments:
    """Command line of the redrawing."""

    results: Path = RESULTS
    """Folder of results folders."""
    out: Path | None = None
    """Where the figures go; default: beside their records."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    drawers = {
        "comparisons.csv": results.draw_all, "kl_estimators.csv": exact_world.draw_all,
        "temperature.csv": temperature.draw_all, "judges.csv": judge_simulation.draw_all,
        "win_rates.csv": win_rates.draw_all, "best_of_n.csv": best_of_n.draw_all,
    }  # fmt: skip
    folders = sorted(path for path in arguments.results.glob("*") if path.is_dir())
    found = [(folder, draw) for folder in folders for table, draw in drawers.items() if (folder / table).exists()]
    for folder in set(folders) - {folder for folder, _ in found}:
        if any(folder.glob("*.png")):
            print(f"{folder}: skipped, its records are of an older version; run its experiment again", file=sys.stderr)
    if not found:
        raise UserError(f"--results {arguments.results}: no results folder there; run an experiment first, see README.md")
    for folder, draw in found:
        for path in draw(folder, arguments.out / folder.name if arguments.out else None):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
