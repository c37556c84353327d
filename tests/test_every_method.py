"""What every registered method must keep, whoever wrote it: the checks of `suite check-method`, on the exact world."""

import pytest

from suite.check_method import check_method
from suite.errors import UserError
from suite.registry import load_method, method_targets, resolve


@pytest.mark.parametrize("name", sorted(method_targets()))
def test_it_passes_every_check_on_the_exact_world(name):
    results = check_method(name)
    assert len(results) == 9
    assert not [f"{result.name}: {result.why}" for result in results if not result.ok]


def test_unknown_methods_get_a_hint():
    with pytest.raises(UserError, match="did you mean 'unlikelihood'"):
        resolve("unlikelyhood")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_method("suite.training.dpo:Nothing")
