import importlib
import sys

import pytest

from suite.runs.code_hash import _digest_and_imports, code_hash

METHOD = '''
"""A method."""
from helper_of_test import twice
from suite.maths.losses import dpo_loss

def loss(x):
    """Twice x."""
    return twice(x)  # why not
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "kto_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text(METHOD.replace("helper_of_test", "kto_of_test.helper"))
    (folder / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("kto_of_test")]:
        del sys.modules[name]


def digest():
    importlib.invalidate_caches()
    _digest_and_imports.cache_clear()
    return code_hash(["kto_of_test.method"])


def test_what_runs_counts_and_what_is_only_read_does_not(package):
    before = digest()
    path = package / "method.py"
    path.write_text(path.read_text().replace("# why not", "# because").replace("Twice x.", "Two x."))
    assert digest() == before
    path.write_text(path.read_text().replace("return twice(x)", "return -twice(x)"))
    assert digest() != before


def test_an_outside_methods_own_helpers_count(package):
    before = digest()
    (package / "helper.py").write_text("def twice(x):\n    return 3 * x\n")
    assert digest() != before


def test_the_losses_a_method_calls_count(package, monkeypatch):
    before = digest()
    original = _digest_and_imports

    def edited(name):
        value = original(name)
        return ("edited", value[1]) if name == "suite.maths.losses" else value

    monkeypatch.setattr("suite.runs.code_hash._digest_and_imports", edited)
    assert code_hash(["kto_of_test.method"]) != before
    assert code_hash(["suite.training.dpo"]) != code_hash(["suite.data.labelling"])


def test_every_stage_of_training_depends_on_the_losses(monkeypatch):
    original = _digest_and_imports
    before = {m: code_hash([m]) for m in ("suite.training.dpo", "baselines.unlikelihood", "baselines.preferred_ft")}
    monkeypatch.setattr(
        "suite.runs.code_hash._digest_and_imports",
        lambda name: ("edited", original(name)[1]) if name == "suite.maths.losses" else original(name),
    )
    assert all(code_hash([m]) != old for m, old in before.items())
