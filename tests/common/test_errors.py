"""One line for what the user can mend, and strangers' texts that a terminal shows instead of obeying them."""

import errno
import io
import os
import sys

import pytest

from suite.common.errors import LONGEST, UserError, listed, one_line_errors, shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain – ünïcode 🙂", "plain – ünïcode 🙂"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("c1 \x9b5n del \x7f", r"c1 \x9b5n del \x7f"),
        ("exe\u202egpj\u2066x\u200f", r"exe\u202egpj\u2066x\u200f"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("half \udcff", r"half \udcff"),
        ("two\u2028lines", r"two\u2028lines"),
    ],
)
def test_what_a_terminal_would_obey_is_an_escape(text, said):
    assert shown(text) == said
    shown(text).encode()


def test_lines_of_a_completion_stay_and_nothing_else_does():
    assert shown("a\n\tb\x1b\r", keep="\n\t") == "a\n\tb\\x1b\\r"


@pytest.mark.parametrize("limit", [10, 40, 299])
def test_of_a_long_text_both_ends_are_shown(limit):
    found = shown("begin" + 1000 * "x" + "end", limit)
    assert len(found) == limit
    assert found.startswith("be")
    assert found.endswith("end")
    assert " … " in found
    assert shown("x" * limit, limit) == "x" * limit


def test_names_of_others_are_listed_up_to_a_number():
    assert listed(["a", "b\x1b"]) == r"a, b\x1b"
    assert listed([f"c{i}" for i in range(20)], most=3) == "c0, c1, c2, … 17 more"
    assert len(listed(["x" * 1000])) == 40


def line_of(capsys, error):
    @one_line_errors
    def main():
        raise error

    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "n" * 20), ["n" * 20, "too long"]),
        (NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "file/x"), ["file/x", "not a directory"]),
        (IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "folder"), ["folder", "is a directory"]),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone.csv"), ["gone.csv", "no such file"]),
        (FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "there"), ["there", "exists"]),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "mount/x"), ["mount/x", "read-only"]),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "mine.csv"), ["no permission for mine.csv"]),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "runs/x"), ["disk full", "runs/x"]),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ["disk full; free"]),
        (UserError("column \x1b[2J of\nthe file"), [r"column \x1b[2J of the file"]),
    ],
)
def test_faults_of_files_are_one_line_with_the_files_name(capsys, error, words):
    line = line_of(capsys, error)
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_a_line_has_an_end(capsys):
    line = line_of(capsys, UserError("what is wrong " + 5000 * "x" + " and what to do"))
    assert len(line) == LONGEST
    assert line.startswith("error: what is wrong")
    assert line.endswith("and what to do")


def test_a_terminal_that_knows_ascii_alone_is_told_in_ascii(monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    @one_line_errors
    def main():
        print("β of π \udcff")
        raise UserError("a file called ü – there is none")

    assert main() == 2
    said = {}
    for name, stream in streams.items():
        stream.flush()
        said[name] = stream.buffer.getvalue().decode("ascii")
    assert said["stdout"] == "\\u03b2 of \\u03c0 \\udcff\n"
    assert "\\xfc" in said["stderr"]
