"""Batches of like lengths."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from suite.data.batching import different, length_batches


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(0, 120))
def test_every_index_once_the_longest_first_and_never_an_empty_batch(lengths, budget):
    batches = list(length_batches(lengths, lambda longest: budget // longest))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(batches)
    found = [lengths[i] for batch in batches for i in batch]
    for batch, after in pairwise(batches):
        assert min(lengths[i] for i in batch) >= max(lengths[i] for i in after)
    for batch in batches[:-1]:  # the last holds what is left
        assert len(batch) == max(1, budget // max(lengths[i] for i in batch))
    assert not found or max(found) == max(lengths[i] for i in batches[0])


def test_batches_by_hand():
    assert list(length_batches([3, 9, 1, 5], lambda longest: 10 // longest)) == [[1], [0, 3], [2]]
    assert list(length_batches([7, 7], lambda longest: 0)) == [[1], [0]]
    assert list(length_batches([], lambda longest: 4)) == []


def test_what_stays_together_is_counted_by_its_sequences():
    assert list(length_batches([3, 9, 1, 5], lambda _: 5, [4, 2, 1, 3])) == [[3, 1], [2, 0]]
    assert list(length_batches([3, 9], lambda _: 1, [4, 2])) == [[1], [0]]  # more than fit: alone


@given(st.lists(st.integers(0, 5), max_size=20))
def test_different_rows_and_back(rows):
    first, which = different(rows)
    some = [rows[i] for i in first]
    assert len(set(some)) == len(some)
    assert (some if isinstance(which, slice) else [some[k] for k in which]) == rows
    assert all(rows.index(rows[i]) == i for i in first)
