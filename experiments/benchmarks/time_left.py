"""What a command said of the time it had left, minute by minute, beside what it took in the end.

The command runs as it is, with no terminal, and its lines "05:00 gone, 06:40 left, …" are read.

examples:
  python experiments/benchmarks/time_left.py
  python experiments/benchmarks/time_left.py --keep /tmp/default
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from suite.analysis.records import write_text
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import CommandLine, Folder
from suite.common.errors import UserError
from suite.common.machine import available_cores
from suite.report.page import page, table

SAID = re.compile(r"([\d:]+) gone, ([\d:]+) left")


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    command: CommandLine = "experiments/run_imdb_frontier.py"
    """A script with its options; its runs are made anew, in a folder of their own."""
    keep: Folder | None = None
    """Where its runs and results are kept; default: thrown away."""
    out: Folder = RESULTS / "benchmarks"
    """Where time_left.md goes."""


def main(args: Arguments) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folders = ["--runs", str(folder / "runs"), "--out", str(folder / "results")]
        began, used = time.monotonic(), os.times()
        done = subprocess.run([sys.executable, *shlex.split(args.command), *folders], stderr=subprocess.PIPE, text=True)
        took, after = time.monotonic() - began, os.times()
    if done.returncode:
        raise UserError(f"{args.command} failed ({done.returncode}): {done.stderr.strip().rpartition(chr(10))[2]}")
    said = [tuple(map(_seconds, match.groups())) for match in SAID.finditer(done.stderr)]
    rows = [
        {"gone": f"{gone / 60:.0f} min", "said to be left": f"{left / 60:.1f} min", "was left": f"{(took - gone) / 60:.1f} min",
         "said, of the whole": f"{(gone + left) / took:.0%}"}
        for gone, left in said
    ]  # fmt: skip
    cpu = after.children_user + after.children_system - used.children_user - used.children_system
    whole = f"`python {args.command}` took {took / 60:.1f} min of wall time and {cpu / 60:.1f} CPU-minutes."
    text = page("Time left", [("", made_here(f"{available_cores()} cores")), ("", whole), ("", table(rows))])
    write_text(args.out / "time_left.md", text)
    print(text)
    return 0


def _seconds(clock: str) -> int:
    """Of 12:34 or 1:23:45."""
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return total


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
