"""Errors that are the user's to mend: one clear line, exit code 2, no traceback."""

import difflib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end an "unknown name" message with: the nearest known name, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(names)}"


def in_words(error: OSError) -> str:
    """One line about a full disk, a quota, or a file or folder without permission; "" for any other error."""
    name = os.fsdecode(error.filename) if error.filename else "results"
    if error.errno in DISK_FULL:
        return f"disk full while writing {name}; free some space and start again: nothing finished is lost"
    if error.errno == errno.EROFS:
        return f"{name}: the disk is read-only; choose another place"
    if error.errno in READ_ONLY:
        unread = os.path.exists(name) and not os.access(name, os.R_OK)
        return f"no permission to read {name}" if unread else f"no permission to write {name}; choose another place"
    return ""


def one_line_errors(main: Callable[[], int | None]) -> Callable[[], int]:
    """Turn `UserError`, a full disk, a read-only one and a missing permission into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped() -> int:
        try:
            return main() or 0
        except UserError as error:
            message = str(error)
        except OSError as error:
            if not (message := in_words(error)):
                raise
        except KeyboardInterrupt:
            print("\nstopped; start the same command again to go on from here", file=sys.stderr)
            return 130
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2

    return wrapped
