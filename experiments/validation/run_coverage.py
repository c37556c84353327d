"""Do the intervals hold the truth as often as they say? Simulated data whose truth is known, at the sizes that are reported.

Examples:
  python experiments/validation/run_coverage.py                       the committed table, about four minutes on one core
  python experiments/validation/run_coverage.py --replications 2000   more precisely, a quarter of an hour
"""

from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from tqdm import tqdm

from suite.analysis.records import write_text
from suite.check.coverage import CASES, SIZES, simulate
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import Folder, whole
from suite.common.files import check_writable, write_atomically
from suite.report.page import interval, page, table


@dataclass(frozen=True)
class Arguments:
    """Command line of the coverage simulation."""

    replications: Annotated[int, whole(10)] = 500
    """Simulated data sets per case and size."""
    out: Folder = RESULTS / "statistics"
    """Where coverage.csv and summary.md go."""


def main(args: Arguments) -> int:
    check_writable(args.out)
    jobs = [(name, n) for name in CASES for n in SIZES]
    rows: list[dict[str, Any]] = [
        {"case": name, "n": n, **simulate(CASES[name], n, args.replications)} for name, n in tqdm(jobs, unit="case")
    ]
    found = pd.DataFrame(rows)
    write_atomically(args.out / "coverage.csv", lambda path: found.to_csv(path, index=False, float_format="%.4g"))
    lead = (
        f"Share of {args.replications} simulated data sets whose nominal 95 % interval holds the truth, with the 95 % Wilson "
        "interval of that share."
    )
    shown = [
        {"case": row["case"], "data": str(CASES[row["case"]].__doc__).splitlines()[0], "n prompts": row["n"],
         "coverage": interval(row["coverage"], row["low"], row["high"]), "mean width": f"{row['width']:.4f}"}
        for row in rows
    ]  # fmt: skip
    text = page("Coverage of the intervals", [("", made_here()), ("", lead), ("", table(shown))])
    write_text(args.out / "summary.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
