"""No documented command may dangle: every one names a script that exists and flags that it takes."""

import re
import shlex
from pathlib import Path

import pytest
from doors import through_doors

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "experiments/README.md", "CONTRIBUTING.md", "Makefile", *map(str, ROOT.glob("docs/*.md")),
             *(str(p.relative_to(ROOT)) for p in ROOT.glob("experiments/**/*.py"))]  # fmt: skip


def documented():
    found = set()
    for document in DOCUMENTS:
        for match in re.finditer(
            r"python (experiments/[\w/]+\.py)((?: +(?:--[\w-]+|[^\s`#&|<\"{}]+))*)", (ROOT / document).read_text()
        ):
            arguments = match[2].split("   ")[0]  # a description stands after several blanks
            if not match.string[match.end() :].startswith(" {"):  # a command that a script writes
                found.add((match[1], arguments.strip()))
    return sorted(found)


COMMANDS = documented()


def test_some_are_found():
    assert ("experiments/run_imdb_frontier.py", "--profile smoke") in COMMANDS
    assert len(COMMANDS) > 8


@pytest.fixture(scope="module")
def parsed():
    """Every script with its options read and then stopped, all in one process: command → exit code, what was said."""
    known = [command for command in COMMANDS if (ROOT / command[0]).exists()]
    lines = [(ROOT / script, *shlex.split(arguments)) for script, arguments in known]
    return dict(zip(known, through_doors("parse", lines), strict=True))


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_the_command_exists(script, arguments, parsed):
    assert (ROOT / script).exists()
    code, printed, complaint = parsed[script, arguments]
    assert code == 0, complaint or printed


def test_the_test_command_of_the_readme_is_the_one_ci_runs():
    assert re.search(r'pip install "?\.\[test\]"? && pytest', (ROOT / "README.md").read_text())
    assert "make check" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"(?m)^\tpytest$", (ROOT / "Makefile").read_text())


def test_the_readmes_python_runs(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert "kl_exact" in capsys.readouterr().out
