"""What a run costs, by hand."""

import pytest

from suite.engine.store import RunSpec
from suite.engine.workload import Workload


@pytest.mark.parametrize(
    ("work", "tokens"),
    [
        (Workload(), 0),
        (Workload(prompt=8, new=32, drawn=10), 10 * 40),
        (Workload(prompt=8, new=32, scored=10), 10 * 40),
        (Workload(prompt=8, new=32, trained=10), 3 * 10 * 40),
        (Workload(prompt=2, new=3, drawn=7, scored=21, trained=28), (7 + 21 + 3 * 28) * 5),
        (Workload(prompt=2, new=3, drawn=7, models=3, batch=16, adapters=8, state=8, bfloat16=True), 7 * 5),
    ],
)
def test_tokens_by_hand(work, tokens):
    assert work.tokens == tokens
    assert RunSpec("stage", {}, work=work).cost == max(1, tokens)
