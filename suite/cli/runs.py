"""The folder of runs: what is in it, whether it is as it was written, and what of it nobody needs."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tabulate import tabulate

from suite.cli.options import RUNS
from suite.cli.ranges import Folder
from suite.common.errors import UserError
from suite.common.files import remove
from suite.engine import checkpoint
from suite.engine.lease import Held, held
from suite.engine.manifest import done, flaw, read_json
from suite.engine.store import DAMAGED, set_aside

KEY = re.compile("[0-9a-f]{16}")


def ls(runs: Folder = RUNS) -> int:
    """List every run: stage, title, key, state, size and the day it was done.

    Examples:
      suite runs ls
      suite runs ls --runs my/runs

    Args:
        runs: Where runs are kept.
    """
    rows = []
    for folder in folders(runs):
        facts = read_json(folder / "DONE")
        rows.append((
            folder.parent.name, facts.get("title", ""), folder.name, state(folder), f"{size_of(folder) / 1e6:,.1f}",
            str(facts.get("created_at", ""))[:10],
        ))  # fmt: skip
    print(tabulate(rows, headers=["stage", "run", "key", "state", "MB", "date"], disable_numparse=True))
    return 0


def verify(runs: Folder = RUNS, mend: bool = False) -> int:
    """Read every byte that finished runs left, and name what is not as it was written. Exit code 1 if there is any.

    Every start of a study looks at names, sizes and dates; this finds what decayed on the disk too.

    Examples:
      suite runs verify
      suite runs verify --mend             the next study that needs a damaged run makes it again

    Args:
        runs: Where runs are kept.
        mend: Set aside what is damaged.
    """
    found = folders(runs)
    problems = {folder: problem for folder in found if (problem := flaw(folder, every_byte=True))}
    for folder, problem in problems.items():
        print(f"{folder}: {problem}")
        if mend:
            with contextlib.suppress(Held):
                set_aside(runs, folder, problem)
    unknown = sum("files" not in facts for facts in (read_json(folder / "DONE") for folder in found) if facts)
    print(
        f"{len(found)} runs: {len(problems)} damaged" + (", to be made again" if mend and problems else "")
        + (f"; {unknown} of an older version, which noted no hashes" if unknown else "")
    )  # fmt: skip
    return 1 if problems else 0


def gc(runs: Folder = RUNS, delete: bool = False) -> int:
    """Show what nobody needs: checkpoints of finished runs, what was set aside, half-written files, folders of no known run.

    Examples:
      suite runs gc                        shows it, with sizes
      suite runs gc --delete               removes it

    Args:
        runs: Where runs are kept.
        delete: Remove it. What a live process holds stays.
    """
    found = []
    for path in (runs / DAMAGED).glob("*/*"):
        found.append(_told(path, "set aside", delete))
    for folder in folders(runs):
        with contextlib.suppress(Held):
            if not folder.is_dir():
                found.append(_told(folder, "no folder", delete))
            elif any(needless(folder)):
                with held(folder) if delete else contextlib.nullcontext():
                    found += [_told(path, why, delete) for path, why in list(needless(folder))]
    print(
        f"{len(found)} found, {sum(found) / 1e6:,.1f} MB" + (": removed" if delete else "; --delete removes them" * bool(found))
    )
    return 0


def folders(runs: Path) -> list[Path]:
    """Every run's folder, or what stands in its place. Raises UserError if there is no folder of runs."""
    if not runs.is_dir():
        raise UserError(f"--runs {runs}: no folder of runs there")
    return sorted(path for path in runs.glob("*/*") if KEY.fullmatch(path.name))


def state(folder: Path) -> str:
    """How a run stands: `done`, `damaged` and why, `stopped` with or without a checkpoint."""
    if problem := flaw(folder):
        return f"damaged: {problem}"
    if done(folder):
        return "done"
    return "stopped, has a checkpoint" if (folder / checkpoint.FILE).exists() else "stopped"


def needless(folder: Path) -> Iterator[tuple[Path, str]]:
    """What of a run's folder nobody needs, and why."""
    if not read_json(folder / "spec.json"):
        yield folder, "of no known run"
        return
    if done(folder) and (folder / checkpoint.FILE).exists():
        yield folder / checkpoint.FILE, "checkpoint of a finished run"
    if (folder / checkpoint.UNREADABLE).exists():
        yield folder / checkpoint.UNREADABLE, "set aside"
    for path in folder.rglob(".*.tmp"):
        yield path, "half-written"


def _told(path: Path, why: str, delete: bool) -> int:
    """Print, and perhaps remove, something; its size in bytes."""
    size = size_of(path)
    print(f"{size / 1e6:10,.1f} MB  {path}  ({why})")
    if delete:
        remove(path)
    return size


def size_of(path: Path) -> int:
    """Bytes of a file or a folder, links as they are."""
    return sum(p.lstat().st_size for p in (path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]))


COMMANDS: dict[str, Callable[..., int]] = {"ls": ls, "verify": verify, "gc": gc}
