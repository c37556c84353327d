"""Make one run: whatever happens to it is an outcome."""

import contextlib
import pkgutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.common.errors import UserError
from suite.common.files import of_the_disk, write_atomically
from suite.engine.lease import Held
from suite.engine.rank_runs import RankLost, followed
from suite.engine.store import Damaged, RunSpec, open_run, reading
from suite.engine.tracking import Tracker

MOST_DEATHS = 5
"""Of processes in a row, at one run, on machines that may be taken away more than once."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `cached`, `done`, `failed`, `skipped` (an input failed); or not yet: `held` by another process, or
    `lost`, since the process that made it died.
    """

    spec: RunSpec
    status: str
    error: str = ""


def closure(targets: Sequence[RunSpec]) -> list[RunSpec]:
    """`targets` and all they need, inputs first, each once."""
    ordered: dict[str, RunSpec] = {}

    def visit(spec: RunSpec) -> None:
        if spec.key not in ordered:
            for needed in spec.inputs.values():
                visit(needed)
            ordered[spec.key] = spec

    for target in targets:
        visit(target)
    return list(ordered.values())


def run_one(
    root: Path, spec: RunSpec, tracker: Tracker = "none", gpus: int = 1, most_deaths: int | None = None
) -> Outcome:  # fmt: skip
    """Make one run if it is not done, on so many GPUs if it trains. A fault, whatever is raised, becomes an `Outcome` and
    leaves `error.log` beside the run; so does it if `most_deaths` processes in a row have died at it. Raises UserError for bad
    input (a malformed row), and OSError without permission or with a full disk.
    """
    try:
        with open_run(root, spec, tracker) as run:
            if run.done:
                return Outcome(spec, "cached")
            if most_deaths and run.lease and run.lease.deaths >= most_deaths:
                words = f"{most_deaths} processes in a row died at it (a crash of native code, or memory)"
                return Outcome(spec, "failed", words)
            try:
                with reading(root, spec.inputs.values()), followed(run, gpus):
                    pkgutil.resolve_name(spec.function)(run)
            except Exception:
                run.check_lease()  # what failed may be no fault: files that another process has taken over
                raise
            run.finish()
        return Outcome(spec, "done")
    except (Held, Damaged) as error:
        return Outcome(spec, "held" if isinstance(error, Held) else "failed", str(error))
    except UserError as error:  # the user's to mend: stop the sweep and say so, in a class that every process knows
        raise UserError(str(error)) from error
    except RankLost as error:
        return Outcome(spec, "lost", str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: other runs go on
        if of_the_disk(error):
            raise OSError(error.errno, error.strerror, error.filename) from error
        log = spec.directory(root) / "error.log"
        with contextlib.suppress(OSError):
            write_atomically(log, lambda path: path.write_text(traceback.format_exc(), encoding="utf-8", errors="replace"))
        return Outcome(spec, "failed", f"{type(error).__name__}: {error} (log: {log})")
