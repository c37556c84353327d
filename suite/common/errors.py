"""Errors that are the user's to mend: one clear line, exit code 2, no traceback."""

import difflib
import errno
import functools
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end an "unknown name" message with: the nearest known name, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(names)}"


def one_line_errors(main: Callable[[], int | None]) -> Callable[[], int]:
    """Turn `UserError`, a full disk and a missing permission into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped() -> int:
        try:
            return main() or 0
        except UserError as error:
            message = str(error)
        except PermissionError as error:
            message = f"no permission to write {error.filename}; choose another place"
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            where = error.filename or "results"
            message = f"disk full while writing {where}; free some space and start again: nothing finished is lost"
        except KeyboardInterrupt:
            print("\nstopped; start the same command again to go on from here", file=sys.stderr)
            return 130
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2

    return wrapped
