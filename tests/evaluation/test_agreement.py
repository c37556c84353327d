import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from suite.evaluation.agreement import agreement, agreement_table, opinions


def test_kappa_agrees_with_statsmodels():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, 300)
    b = np.where(rng.random(300) < 0.7, a, 1 - a)
    found = agreement(a, b, range(300))
    cells = np.histogram2d(a, b, bins=2)[0]
    theirs = cohens_kappa(cells)
    assert found.share.mean == pytest.approx((a == b).mean())
    assert found.kappa.mean == pytest.approx(theirs.kappa)
    assert found.kappa.low == pytest.approx(theirs.kappa_low, abs=0.03)
    assert found.kappa.high == pytest.approx(theirs.kappa_upp, abs=0.03)


def test_raters_who_always_say_the_same_have_no_kappa():
    found = agreement([1, 1, 1], [1, 1, 1], list("abc"))
    assert found.share.mean == 1
    assert np.isnan(found.kappa.mean)


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="0 and 1"):
        agreement([0, 2], [0, 1], list("ab"))


def test_opinions_of_two_orders():
    verdicts = pd.DataFrame(
        [
            ("p", 0, "policy"), ("p", 0, "policy"), ("p", 1, "policy"), ("p", 1, "opponent"), ("q", 2, "opponent"),
            ("q", 2, "tie"), ("q", 5, "policy"), ("q", 5, "failed"), ("q", 6, "policy"), ("q", 6, "policy"), ("r", 3, "tie"),
            ("r", 3, "tie"), ("s", 4, "failed"), ("s", 4, "failed"),
        ],
        columns=["prompt_id", "comparison", "winner"],
    )  # fmt: skip
    assert opinions(verdicts).values.tolist() == [["p", 0, 1], ["q", 0, 0], ["q", 2, 1]]


def test_people_are_pooled_and_pairs_counted():
    def rater(*choices):
        return opinions(pd.DataFrame({"prompt_id": list("abcd")[: len(choices)], "winner": choices}))

    w, o = "policy", "opponent"
    raters = {"gpt": rater(w, w, o, w), "human:1": rater(w, o, o, w), "human:2": rater(w, w, o)}
    groups = {"gpt": "gpt", "human:1": "humans", "human:2": "humans"}
    table = agreement_table(raters, groups).set_index(["what", "first", "second"])
    assert table.loc[("win rate", "humans", ""), "share"] == pytest.approx(4 / 7)
    assert table.loc[("agreement", "gpt", "humans"), ["share", "judgments"]].tolist() == pytest.approx([6 / 7, 7])
    assert table.loc[("agreement", "humans", "humans"), ["share", "judgments"]].tolist() == pytest.approx([2 / 3, 3])
