"""What a finished run left, by size and hash, as its `DONE` says; and whether that is what lies there.

A file of the size and the date that `DONE` names is taken for the one that was written; of another date its hash decides. So
every start can look at every run, and what was cut, lost or edited is not used.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from suite.common.files import sync, write_atomically
from suite.engine import checkpoint
from suite.engine.lease import is_lease

APART = {"DONE", checkpoint.FILE, checkpoint.UNREADABLE, "error.log"}
"""Files of a run that are no part of its result."""


def write_done(directory: Path, facts: dict[str, Any]) -> None:
    """Write `DONE`: `facts`, and of every file that the run leaves its `size`, `sha256` and `changed` (ns), when all of them
    are on the disk for good.
    """
    files, left = {}, left_in(directory)
    for path in left:
        sync(path)
        stat = path.stat()
        files[path.relative_to(directory).as_posix()] = {
            "size": stat.st_size, "sha256": _sha256(path), "changed": stat.st_mtime_ns
        }  # fmt: skip
    for folder in {path.parent for path in left}:
        sync(folder)
    whole = {**facts, "files": files}
    text = json.dumps({**whole, "sha256": _seal(whole)}, indent=1) + "\n"
    write_atomically(directory / "DONE", lambda path: path.write_text(text, encoding="utf-8"))


def left_in(directory: Path) -> list[Path]:
    """The files of a run's result."""
    found = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    return sorted(
        path for name, path in found.items()
        if name.as_posix() not in APART and not is_lease(name.as_posix()) and not any(p.startswith(".") for p in name.parts)
    )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def done(directory: Path) -> bool:
    """Whether the run was finished, and all it left is there as it was."""
    return os.path.lexists(directory / "DONE") and not flaw(directory)


def flaw(directory: Path, *, every_byte: bool = False) -> str:
    """What is wrong with a run's folder, in words; empty if nothing is, if the run is not done, or if there is none.

    With `every_byte` the hash of every file is looked at; of runs without hashes (of an older version) whether there is a
    `DONE` and a `spec.json`.
    """
    if os.path.lexists(directory) and not directory.is_dir():
        return "is no folder"
    finished, named = os.path.lexists(directory / "DONE"), os.path.lexists(directory / "spec.json")
    if (finished or named) and not (spec := read_json(directory / "spec.json")):
        return "spec.json cannot be read"
    if not finished:
        return ""
    if str(spec.get("key"))[:16] != directory.name:
        return "spec.json is of another run"
    facts = read_json(directory / "DONE")
    if not facts:
        return "DONE cannot be read"
    if "sha256" in facts and facts.pop("sha256") != _seal(facts):
        return "DONE was changed"
    problems = (_flaw_of_file(directory, name, was, every_byte) for name, was in facts.get("files", {}).items())
    return next((problem for problem in problems if problem), "")


def _flaw_of_file(directory: Path, name: str, was: dict[str, Any], every_byte: bool) -> str:
    path = directory / name
    try:
        stat = path.stat()
    except OSError:
        return f"{name} is missing"
    if not path.is_file():
        return f"{name} is no file"
    if stat.st_size != was["size"]:
        return f"{name} has {stat.st_size:,} of {was['size']:,} bytes"
    same_date = stat.st_mtime_ns == was["changed"]
    if (every_byte or not same_date) and _sha256(path) != was["sha256"]:
        return f"{name} was changed"
    if not same_date:  # it was copied: with its date again it need not be read at every start
        with contextlib.suppress(OSError):
            os.utime(path, ns=(was["changed"], was["changed"]))
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
