"""A program of the tests: runs scripts in one process, each as from its command line, and says how each ended.

Reads a JSON list of command lines (lists of words, the script or `suite` first) from stdin and writes a JSON list of [exit
code, stdout, stderr]. `python doors.py run` runs them whole; `parse` stops each when its options have been read; `start` lets
each start no other program, and adds to its result the command lines that it would have started.
"""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import tyro

from suite.cli.main import main as suite


def parse_only(parse):
    def parsed(*arguments, **options):
        parse(*arguments, **options)
        raise SystemExit(0)

    return parsed


def ended(words):
    """The exit code, what was printed, and what was complained about."""
    out, err = io.StringIO(), io.StringIO()
    is_suite = words[0] == "suite"
    sys.argv, sys.path[0] = words, str(Path(__file__ if is_suite else words[0]).parent)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if is_suite:
                sys.exit(suite())
            runpy.run_path(words[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
    return [code, out.getvalue(), err.getvalue()]


def through_doors(mode, command_lines, **options):
    """For the tests: what all of these do, in one process that is started with `options`."""
    lines = [list(map(str, words)) for words in command_lines]
    done = subprocess.run([sys.executable, __file__, mode], input=json.dumps(lines), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def main(mode):
    answers, started = os.fdopen(os.dup(1), "w"), []
    os.dup2(2, 1)  # what programs that are started in between print is not mixed with the answers
    if mode == "parse":
        tyro.cli = parse_only(tyro.cli)
    if mode == "start":

        def start(words, *_, **__):
            started.append(list(map(str, words)))
            return subprocess.CompletedProcess(words, 0)

        subprocess.run = start
    results = []
    for words in json.load(sys.stdin):
        started.clear()
        results.append([*ended(words), *([list(started)] if mode == "start" else [])])
    with answers:
        json.dump(results, answers)


if __name__ == "__main__":
    main(sys.argv[1])
