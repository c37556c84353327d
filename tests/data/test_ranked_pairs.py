"""The best sample of a prompt against its worst, rated by quartile of the gap."""

import pandas as pd

from suite.data.ranked_pairs import best_and_worst


def test_best_and_worst_of_every_prompt_with_a_rating_by_quartile():
    rows = []
    for number, gap in enumerate([4.0, 1.0, 3.0, 2.0, 0.5, 3.5, 1.5, 2.5]):
        rows += [(f"p{number}", " worst ", 0.0), (f"p{number}", "middle", gap / 2), (f"p{number}", " best", gap)]
    rows += [("tied", "a", 1.0), ("tied", "b", 1.0), ("empty", "only one", 2.0), ("empty", "  ", 0.0)]
    found = best_and_worst(pd.DataFrame(rows, columns=["prompt_id", "text", "score"]))
    assert found["prompt_id"].tolist() == [f"p{number}" for number in range(8)]  # ties and single samples are no pair
    assert set(found["chosen"]) == {"best"}
    assert set(found["rejected"]) == {"worst"}
    assert found["score_chosen"].tolist() == [4.0, 1.0, 3.0, 2.0, 0.5, 3.5, 1.5, 2.5]
    assert found["rating"].tolist() == [3, 0, 2, 1, 0, 3, 1, 2]  # two of each


def test_nothing_to_rank_is_an_empty_table():
    assert best_and_worst(pd.DataFrame({"prompt_id": ["p"], "text": ["a"], "score": [1.0]})).empty
