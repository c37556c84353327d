import math

import pandas as pd
import pytest

from suite.evaluation.generation_health import alarms, distinct_n, generation_health, repetition


def test_distinct_n_by_hand():
    ids = [[1, 2, 1, 2], [1, 2, 3]]  # 2-grams: 12 21 12, 12 23 → 3 of 5
    assert distinct_n(ids, 1) == pytest.approx(3 / 7)
    assert distinct_n(ids, 2) == pytest.approx(3 / 5)
    assert distinct_n(ids, 3) == pytest.approx(3 / 3)
    assert math.isnan(distinct_n([[1]], 2))


def test_repetition_by_hand():
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([7] * 12) == pytest.approx(0.9)  # one of ten 3-grams is new
    assert repetition([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)  # 123 231 312 123
    assert repetition([1, 2]) == 0


def frame(ids, logps=-3.0, truncated=False):
    texts = [" ".join(map(str, some)) for some in ids]
    return pd.DataFrame(
        {"ids": ids, "text": texts, "tokens": [len(i) for i in ids], "truncated": truncated,
         "reference_logps": [logps * len(i) for i in ids]}
    )  # fmt: skip


def test_health_by_hand():
    found = generation_health(frame([[1, 2, 3, 4], [1, 2, 3, 4], [5, 6]]))
    assert found["tokens"] == pytest.approx(10 / 3)
    assert found["eos_rate"] == 1
    assert found["distinct_1"] == pytest.approx(6 / 10)
    assert found["identical"] == pytest.approx(2 / 3)
    assert found["repetition"] == 0
    assert found["reference_perplexity"] == pytest.approx(math.exp(3))
    with pytest.raises(ValueError, match="no completions"):
        generation_health(frame([]))


WELL = [[k, k + 1, k + 2, k + 3, k + 4, k + 5] for k in range(0, 100, 7)]


@pytest.mark.parametrize(
    ("ids", "logps", "word"),
    [
        ([[9] * 6 for _ in WELL], -3.0, "repeats itself"),
        ([WELL[0]] * len(WELL), -3.0, "identical"),
        ([[k % 2, k % 2 + 1, k % 2 + 2, k, k + 1, k + 2] for k in range(15)], -0.5, "perplexity"),
        ([some[:2] for some in WELL], -3.0, "2 tokens"),
        (WELL, -7.0, "perplexity"),
    ],
)
def test_alarms(ids, logps, word):
    reference = generation_health(frame(WELL))
    assert alarms(reference, reference) == []
    assert any(word in alarm for alarm in alarms(generation_health(frame(ids, logps)), reference))
