"""Simulated judges of known bias: which rate recovers the truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from suite.check.judge_simulation import TRUTH, comparisons, judged
from suite.data.comparisons import Comparison
from suite.evaluation.win_rate import (
    RIDGE,
    length_controlled_win_rate,
    numbers_of,
    summary_of,
    verdict_table,
    win_rate,
)
from suite.judges.judging import questions_of
from suite.report.texts import judged_page


def table(rows):
    names = ["prompt_id", "comparison", "swapped", "verdict", "winner", "policy_length", "opponent_length"]
    return pd.DataFrame(rows, columns=names)


FIVE = table([
    ("a", 0, False, "A", "policy", 9, 3), ("a", 0, True, "B", "policy", 9, 3),  # won in both orders
    ("b", 1, False, "A", "policy", 2, 3), ("b", 1, True, "A", "opponent", 2, 3),  # a flip
    ("c", 2, False, "tie", "tie", 5, 5), ("c", 2, True, "A", "opponent", 5, 5),  # a tie, then lost
    ("d", 3, False, "invalid", "invalid", 1, 9), ("d", 3, True, "A", "opponent", 1, 9),  # does not count
    ("e", 4, False, "", "failed", 1, 9), ("e", 4, True, "A", "opponent", 1, 9),
])  # fmt: skip


def test_the_counts_and_rates_by_hand():
    result = win_rate(FIVE)
    counts = (result.n_asked, result.n_valid, result.n_tie, result.n_invalid, result.n_failed)
    assert counts == (10, 8, 1, 1, 1)
    assert (result.n_comparisons, result.n_compared) == (3, 5)
    assert result.win_rate.mean == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert result.flips.mean == pytest.approx(1 / 3)
    assert result.longer_wins.mean == pytest.approx(3 / 4)
    page = judged_page({"matchup": "a against b", "judge": "j", "template": "t", "order": "both"}, result)
    assert "n_asked 10, n_valid 8, n_tie 1, n_invalid 1, n_failed 1" in page
    assert "], not resolved from a draw |" in page


def test_a_policy_beside_itself_is_a_half_by_construction_and_the_page_says_so():
    """The judge's coin is not asked; where one text differs it is, and eight ties of eight are no certainty."""
    texts = [Comparison(f"p{k}", "x", "same", "same") for k in range(8)]
    for last, low in (("same", 0.5), ("other", 0.5 * 0.025 ** (1 / 8))):
        asked = questions_of([*texts[:7], replace(texts[7], opponent=last)], order="both", seed=0)
        result = win_rate(verdict_table(asked, ["A"] * len(asked)))
        assert result.win_rate[:3] == pytest.approx((0.5, low, 1 - low))
        assert result.length_controlled.low == pytest.approx(low)
        page = judged_page({"matchup": "a against a", "judge": "j", "template": "t", "order": "both"}, result)
        assert ("a half by construction" in page) == (last == "same")


def test_what_each_comparison_says_by_hand():
    numbers = numbers_of(FIVE).set_index("prompt_id")
    nan = np.nan
    expected = {
        "win": [1, 0.5, 0.25, nan, nan], "same_position": [0, 1, 0, nan, nan], "decisive": [2, 2, 0, nan, nan],
        "longer_wins": [2, 1, 0, nan, nan], "policy_length": [9, 2, 5, 1, 1], "opponent_length": [3, 3, 5, 9, 9],
        "asked": [2] * 5, "valid": [2, 2, 2, 1, 1], "tie": [0, 0, 1, 0, 0], "invalid": [0, 0, 0, 1, 0],
        "failed": [0, 0, 0, 0, 1],
    }  # fmt: skip
    assert list(numbers.index) == list("abcde")
    assert list(numbers.columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(numbers[name].to_numpy(dtype=float), values, err_msg=name)


def test_numbers_kept_for_later_give_the_same_summary():
    """However they were stored: as numbers of one kind, in any order of columns."""
    rng = np.random.default_rng(2)
    for verdicts in (FIVE, judged(comparisons(30, rng), "both orders", rng)):
        numbers = numbers_of(verdicts)
        stored = numbers.melt("prompt_id", var_name="metric").astype({"value": float})
        stored = stored.pivot(index="prompt_id", columns="metric", values="value").reindex(numbers["prompt_id"]).reset_index()
        for found in (summary_of(numbers, seed=3), summary_of(stored, seed=3)):
            assert str(found.as_dict()) == str(win_rate(verdicts, seed=3).as_dict())  # bounds may be NaN
    with pytest.raises(ValueError, match="no comparison has a valid verdict in every order asked; n_asked 4"):
        summary_of(numbers_of(FIVE.iloc[6:]))


def test_without_length_differences_the_controlled_rate_is_the_plain_one():
    scores = np.repeat([1.0, 0.0], [70, 30])
    found = length_controlled_win_rate(scores, np.zeros(100), range(100))
    assert found.mean == pytest.approx(0.7, abs=1e-6)
    assert found.low < 0.7 < found.high


def test_the_fit_agrees_with_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    d = rng.normal(40, 100, size=400)
    y = (rng.random(400) < expit(0.3 + 0.01 * d)).astype(float)
    x = sm.add_constant(d / np.sqrt(np.mean(d**2)))
    ridge = sm.GLM(y, x, family=sm.families.Binomial()).fit_regularized(alpha=np.array([0.0, RIDGE]), L1_wt=0.0, maxiter=1000)
    assert length_controlled_win_rate(y, d, range(400)).mean == pytest.approx(expit(ridge.params[0]), abs=2e-4)


def test_one_sided_verdicts_do_not_blow_up():
    found = length_controlled_win_rate(np.ones(50), np.linspace(-5, 5, 50), range(50))
    assert found == (1.0, pytest.approx(0.025 ** (1 / 50)), 1.0, 50)  # as the plain rate: 50 of 50 is no certainty


def test_intervals_resample_prompts():
    rng = np.random.default_rng(1)
    scores = np.repeat(rng.integers(0, 2, 40).astype(float), 10)  # ten copies of each prompt
    lengths = np.repeat(rng.normal(size=40), 10)
    clustered = length_controlled_win_rate(scores, lengths, np.repeat(np.arange(40), 10))
    alone = length_controlled_win_rate(scores, lengths, range(400))
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)
    assert clustered.n == 40


@pytest.mark.parametrize(("bias", "size"), [("position", 0.2), ("length", 0.75)])
def test_what_mends_which_bias(bias, size):
    """A position bias is mended by both orders, and missed with the policy always first; a length bias only by the control."""
    rng = np.random.default_rng(0)
    asked = comparisons(400, rng)
    orders = ("policy always first", "both orders")
    one, both = (win_rate(judged(asked, order, rng, **{bias: size})) for order in orders)

    def holds(interval):
        return interval.low <= TRUTH <= interval.high

    if bias == "position":
        assert holds(both.win_rate)
        assert not holds(one.win_rate)
        assert both.flips.low > 0.3
    else:
        assert holds(both.length_controlled)
        assert not holds(both.win_rate)
        assert not holds(one.win_rate)
        assert both.longer_wins.low > 0.5
