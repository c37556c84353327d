"""Writing that is whole or not there, and folders that are tried before the work."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suite.common.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary path beside `path` (file or folder), then rename it into place.

    Raises:
        UserError: A file was written and `path` is a folder: only a folder (a snapshot, a model) may replace a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove(temporary)
    try:
        write(temporary)
        if path.is_dir():
            if not temporary.is_dir():
                raise UserError(
                    f"{path} is a folder, and a file is to be written there; move the folder or choose another name"
                )
            remove(path)
        os.replace(temporary, path)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, Exception) and not isinstance(error, OSError) and "no space left" in str(error).lower():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error  # torch and safetensors hide it
        raise


def remove(path: Path) -> None:
    """A file or a whole folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Find out before the work, not after it: a folder that cannot be made or written is a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", lambda path: path.write_text(""))
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place with --out or --runs") from error
