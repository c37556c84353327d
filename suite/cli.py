"""The `suite` command. Studies are started from experiments/; here is what serves other people's classes and files."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from suite.errors import one_line_errors


def check_method(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Try a method on the exact world and print what it keeps and what it breaks. Under 30 seconds, on the CPU.

    Examples:
      suite check-method dpo                  a registered method
      suite check-method my_pkg.kto:KTO       a class of your own, importable from here

    Args:
        name: A registered method or module:Class.
    """
    sys.path.insert(0, "")  # a class in the current folder, as `python -m` would find it
    import torch

    from suite.check_method import check_method as run_checks
    from suite.runs.sweep import quiet_libraries

    torch.set_num_threads(1)  # tiny models; and the same sums each time
    quiet_libraries()
    results = []
    for result in run_checks(name):
        print(f"{'ok    ' if result.ok else 'FAILED'} {result.name.replace('_', ' '):<20} {result.why}", flush=True)
        results.append(result)
    failed = sum(not result.ok for result in results)
    print(f"\n{name}: {failed} of {len(results)} checks failed" if failed else f"\n{name}: all {len(results)} checks passed")
    return 1 if failed else 0


@one_line_errors
def main() -> int:
    return tyro.extras.subcommand_cli_from_dict({"check-method": check_method}, prog="suite", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
