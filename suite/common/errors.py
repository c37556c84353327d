"""Errors that are the user's to mend: one clear line, exit code 2, no traceback. And strangers' texts, made safe to print."""

import difflib
import errno
import functools
import re
import sys
from collections.abc import Callable, Collection, Iterable

LONGEST = 300
"""Characters of an error's line."""
FULL = (errno.ENOSPC, errno.EDQUOT)
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it: control characters, marks that turn the direction of a line, half characters."""


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end an "unknown name" message with: the nearest known name, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(names)}"


def shown(text: str, limit: int | None = None, *, keep: str = "") -> str:
    """A stranger's text for a terminal or a page: what would not be seen is written as an escape, but for characters in `keep`;
    of more than `limit` characters the middle is left out.
    """
    plain = UNSEEN.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)
    if limit is None or len(plain) <= limit:
        return plain
    end = limit // 3
    return f"{plain[: limit - end - 3]} … {plain[-end:]}"


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return next((shown(line, most) for line in str(error).splitlines() if line.strip()), type(error).__name__)


def listed(names: Collection[object], most: int = 12) -> str:
    """Names of others, such as the columns of a table, in a line: the first ones, and how many more there are."""
    some = [shown(str(name), 40) for name in list(names)[:most]]
    return ", ".join([*some, *([f"… {len(names) - most} more"] if len(names) > most else [])])


def one_line_errors(main: Callable[[], int | None]) -> Callable[[], int]:
    """Turn `UserError` and faults of files (a full disk, a missing permission, a folder in place of a file) into one line on
    stderr and exit code 2. What the terminal cannot write is written as an escape.
    """

    @functools.wraps(main)
    def wrapped() -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal may know ASCII alone
                stream.reconfigure(errors="backslashreplace")
        try:
            return main() or 0
        except UserError as error:
            message = str(error)
        except OSError as error:
            if error.errno not in FULL and error.filename is None:
                raise
            message = _of_a_file(error)
        except KeyboardInterrupt:
            print("\nstopped; start the same command again to go on from here", file=sys.stderr)
            return 130
        print(f"error: {shown(' '.join(message.split()), LONGEST - len('error: '))}", file=sys.stderr)
        return 2

    return wrapped


def _of_a_file(error: OSError) -> str:
    """What an error of a file, or of a disk, means for who started the command."""
    if error.errno in FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"disk full{where}; free some space and start again: nothing finished is lost"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; choose another place, or change who may use it"
    return f"{error.filename}: {str(error.strerror).lower()}; choose another path"
