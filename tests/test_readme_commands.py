"""No documented command may dangle: every one names a script that exists and flags that it takes."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parent.parent
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


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_the_command_exists(script, arguments, monkeypatch):
    path = ROOT / script
    assert path.exists()
    monkeypatch.syspath_prepend(str(path.parent))
    name = f"documented_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    kind = getattr(module, "Arguments", None) or module.LanguageModel | module.Prompts | module.Classifier
    tyro.cli(kind, args=shlex.split(arguments))


def test_the_test_command_of_the_readme_is_the_one_ci_runs():
    assert re.search(r'pip install "?\.\[test\]"? && pytest', (ROOT / "README.md").read_text())
    assert "make check" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"(?m)^\tpytest$", (ROOT / "Makefile").read_text())


def test_the_readmes_python_runs(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert "kl_exact" in capsys.readouterr().out
