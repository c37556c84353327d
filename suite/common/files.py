"""Writing that is whole or not there, power cuts included, and folders that are tried before the work."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

from suite.common.errors import FULL, UserError

DISK = (*FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Faults of the disk, which are the user's to mend: it is full, or may not be written."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary path beside `path` (file or folder), then rename it into place; both are on the disk then.

    Raises:
        UserError: A file was written and `path` is a folder: only a folder (a snapshot, a model) may replace a folder.
        OSError: It cannot be written; names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path, instead_of=temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            write(temporary)
            if path.is_dir() and not temporary.is_dir():
                raise UserError(
                    f"{path} is a folder, and a file is to be written there; move the folder or choose another name"
                )
            for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
                sync(file)
            if path.is_dir():
                remove(path)
            os.replace(temporary, path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(temporary)
            raise


@contextlib.contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """A fault of the disk is an OSError that names `path`, where Python does not say which file it was, and where torch and
    safetensors hide what it was.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.filename in (None, str(instead_of)):
            error.filename = str(path)
        raise
    except Exception as error:
        if code := _disk_code(error):
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


def of_the_disk(error: BaseException) -> TypeGuard[OSError]:
    """Whether an exception is a fault of the disk."""
    return isinstance(error, OSError) and error.errno in DISK


def _disk_code(error: BaseException | None) -> int | None:
    """The code of the fault of the disk that an exception, or the one that it came from, is or tells of in words."""
    while error:
        for code in DISK:
            if getattr(error, "errno", None) == code or os.strerror(code).lower() in str(error).lower():
                return code
        error = error.__cause__ or error.__context__
    return None


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything else is written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot do it for folders
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """A file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Find out before the work, not after it: a folder that cannot be made or written is a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # of a name that no other process has
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place with --out or --runs") from error
