"""What every registered method must keep, whoever wrote it: the checks of `suite check-method`, on the exact world."""

import pytest

from suite.check_method import check_method
from suite.errors import UserError
from suite.registry import load_method, method_targets, resolve


@pytest.mark.parametrize("name", sorted(method_targets()))
def test_it_passes_every_check_on_the_exact_world(name):
    results = list(check_method(name))
    assert len(results) == 9
    assert not [f"{result.name}: {result.why}" for result in results if not result.ok]
    assert not [result.why for result in results if "nothing in it is random" in result.why or "starts again" in result.why]


def test_unknown_methods_get_a_hint():
    with pytest.raises(UserError, match="did you mean 'unlikelihood'"):
        resolve("unlikelyhood")
    with pytest.raises(UserError, match="cannot be loaded: AttributeError"):
        load_method("suite.training.dpo:Nothing")


def test_a_module_that_breaks_at_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_at_import.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "no_python.py").write_text("def :")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded: RuntimeError: no licence"):
        load_method("broken_at_import:KTO")
    with pytest.raises(UserError, match="cannot be loaded: SyntaxError"):
        load_method("no_python:KTO")
    with pytest.raises(UserError, match="has no 'name'"):
        load_method("os.path:join")
