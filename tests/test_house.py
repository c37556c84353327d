"""What holds the house together: layers, public names, and floors that do without torch."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import suite
from suite.common.registry import targets

ROOT = Path(__file__).parent.parent


def test_imports_point_downwards_and_in_no_circles():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module", ["suite", "suite.study.plan", "suite.analysis.equal_kl", "suite.report.frontier", "suite.report.curves"]
)
def test_plans_records_and_pages_need_no_torch(module):
    words = f"import sys, {module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


def test_a_public_name_is_imported_when_it_is_asked_for_and_a_wrong_one_is_refused():
    for name in suite.__all__:
        assert getattr(suite, name) is not None
    assert set(suite.__all__) <= set(dir(suite))
    with pytest.raises(AttributeError, match="no_such_name"):
        suite.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [p.stem for p in (ROOT / "experiments").glob("*.py")])
def test_a_script_is_a_door_and_imports_no_other(name):
    others = {p.stem for p in (ROOT / "experiments").rglob("*.py")}
    text = (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.startswith(("from ", "import ")) and line.split()[1] in others]


@pytest.mark.parametrize("kind", ["method", "task", "evaluator", "judge"])
def test_every_registered_name_opens(kind):
    assert targets(kind)
    for target in targets(kind).values():
        module, _, name = target.partition(":")
        assert hasattr(importlib.import_module(module), name)
