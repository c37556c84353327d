"""Imports point one way only: an AST walk over every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# package → what it may import of ours (itself is understood)
ALLOWED = {
    "suite.maths": set(),
    "suite.errors": set(),
    "suite.files": {"suite.errors"},
    "suite.sources": {"suite.errors"},
    "suite.data": {"suite.maths", "suite.errors"},
    "suite.interfaces": {"suite.data"},
    "suite.registry": {"suite.errors"},
    "suite.policies": {"suite.maths", "suite.data", "suite.interfaces", "suite.errors"},
    "suite.rewards": {"suite.policies", "suite.maths", "suite.data", "suite.interfaces", "suite.errors"},
    "suite.training": {"suite.rewards", "suite.policies", "suite.maths", "suite.data", "suite.interfaces", "suite.errors"},
    "suite.judges": {
        "suite.rewards",
        "suite.policies",
        "suite.data",
        "suite.interfaces",
        "suite.files",
        "suite.sources",
        "suite.errors",
    },
    "suite.evaluation": {
        "suite.judges",
        "suite.rewards",
        "suite.policies",
        "suite.maths",
        "suite.data",
        "suite.interfaces",
        "suite.errors",
    },
    "suite.runs": {
        "suite.maths",
        "suite.data",
        "suite.interfaces",
        "suite.policies",
        "suite.rewards",
        "suite.training",
        "suite.evaluation",
        "suite.judges",
        "suite.registry",
        "suite.records",
        "suite.files",
        "suite.sources",
        "suite.errors",
    },
    "suite.records": {"suite.maths"},
    "suite.metrics": {"suite.maths", "suite.rewards"},
    "suite.comparisons": {"suite.records", "suite.maths"},
    "suite.figures": {"suite.runs", "suite.records", "suite.comparisons", "suite.files", "suite.maths"},
    "suite.trial": {"suite.data", "suite.interfaces", "suite.policies", "suite.runs", "suite.training"},
    "suite.check_method": {
        "suite.trial",
        "suite.data",
        "suite.evaluation",
        "suite.interfaces",
        "suite.registry",
        "suite.runs",
    },
    "suite.judge_cli": {"suite.judges", "suite.evaluation", "suite.runs", "suite.files", "suite.errors"},
    "suite.cli": {"suite.judge_cli", "suite.check_method", "suite.data", "suite.runs", "suite.files", "suite.errors"},
    "baselines": {
        "suite.maths",
        "suite.data",
        "suite.interfaces",
        "suite.policies",
        "suite.rewards",
        "suite.training",
        "suite.errors",
    },
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def our_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.partition(".")[0] in ("suite", "baselines", "experiments")}


FILES = sorted([*ROOT.glob("suite/**/*.py"), *ROOT.glob("baselines/**/*.py")])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path):
    name = module_name(path)
    package = max((p for p in ALLOWED if name == p or name.startswith(p + ".")), key=len, default=None)
    if package is None:
        assert name in ("suite.__init__", "suite.assets.__init__"), f"{name} has no place in ALLOWED"
        assert not our_imports(path)
        return
    may = ALLOWED[package] | {package}
    bad = {i for i in our_imports(path) if not any(i == m or i.startswith(m + ".") for m in may)}
    assert not bad, f"{name} imports {bad}"


def test_importing_the_library_loads_nothing_heavy():
    import subprocess
    import sys

    code = "import suite, suite.registry, sys; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
