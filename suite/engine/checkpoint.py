"""What a run goes on from after a stop: written whole, and believed only if it is of this run and nothing of it was changed."""

import hashlib
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from suite.common.files import remove, write_atomically

FILE = "checkpoint.pt"
UNREADABLE = "checkpoint.pt.unreadable"


def save(directory: Path, key: str, state: dict[str, Any]) -> None:
    """Keep `state`, the key of its run, which snapshots there are, and what is logged so far."""
    import torch

    def write(path: Path) -> None:
        with path.open("wb") as file:  # torch, given a name, does not say why it cannot write
            torch.save({**state, "run": key, "snapshots": _snapshots(directory), "logged": _logged(directory)}, file)

    write_atomically(directory / FILE, write)


def load(directory: Path, key: str) -> dict[str, Any] | None:
    """What was saved last, None if nothing was. What cannot be gone on from is told of on stderr and set aside, and what
    the run had logged and kept is removed: it starts over.
    """
    path = directory / FILE
    if not os.path.lexists(path):
        return None
    try:
        return read(directory, key)
    except Exception as error:  # whatever is in it
        words = str(error).partition("\n")[0] or type(error).__name__
        print(f"{path}: cannot be resumed from ({words}); set aside, the run starts over", file=sys.stderr, flush=True)
    remove(directory / UNREADABLE)
    os.replace(path, directory / UNREADABLE)
    for name in ("snapshots", "metrics.jsonl"):
        remove(directory / name)
    return None


def read(directory: Path, key: str) -> dict[str, Any]:
    """What was saved last, its tensors on the CPU. Raises whatever reading raises, and ValueError if it cannot be believed."""
    import torch

    path = directory / FILE
    with zipfile.ZipFile(path) as archive:  # torch itself reads changed bytes without a word
        if broken := archive.testzip():
            raise ValueError(f"{broken} was changed")
    state = torch.load(path, weights_only=True, map_location="cpu")
    if not isinstance(state, dict) or state.get("run") != key:
        raise ValueError("it is of another run")
    if any(_snapshots(path.parent).get(name) != size for name, size in state["snapshots"].items()):
        raise ValueError("a snapshot that was there is gone")
    if _logged(path.parent, state["logged"]["size"]) != state["logged"]:
        raise ValueError("metrics.jsonl was changed")
    return state


def _logged(directory: Path, size: int | None = None) -> dict[str, Any]:
    """Size and hash of the first so many bytes, or all, of what the run has logged."""
    path = directory / "metrics.jsonl"
    rows = path.read_bytes()[:size] if path.exists() else b""
    return {"size": len(rows), "sha256": hashlib.sha256(rows).hexdigest()}


def _snapshots(directory: Path) -> dict[str, int]:
    """Size of every file in a snapshot."""
    files = (path for path in (directory / "snapshots").rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}
