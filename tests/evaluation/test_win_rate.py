"""Simulated judges of known bias: which rate recovers the truth."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import run_judge_simulation as simulation

from suite.evaluation.win_rate import RIDGE, describe, length_controlled_win_rate, win_rate


def table(rows):
    names = ["prompt_id", "comparison", "swapped", "verdict", "winner", "policy_length", "opponent_length"]
    return pd.DataFrame(rows, columns=names)


def test_the_counts_and_rates_by_hand():
    verdicts = table([
        ("a", 0, False, "A", "policy", 9, 3), ("a", 0, True, "B", "policy", 9, 3),  # won in both orders
        ("b", 1, False, "A", "policy", 2, 3), ("b", 1, True, "A", "opponent", 2, 3),  # a flip
        ("c", 2, False, "tie", "tie", 5, 5), ("c", 2, True, "A", "opponent", 5, 5),  # a tie, then lost
        ("d", 3, False, "invalid", "invalid", 1, 9), ("d", 3, True, "A", "opponent", 1, 9),  # does not count
        ("e", 4, False, "", "failed", 1, 9), ("e", 4, True, "A", "opponent", 1, 9),
    ])  # fmt: skip
    result = win_rate(verdicts)
    counts = (result.n_asked, result.n_valid, result.n_tie, result.n_invalid, result.n_failed)
    assert counts == (10, 8, 1, 1, 1)
    assert (result.n_comparisons, result.n_compared) == (3, 5)
    assert result.win_rate.mean == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert result.flips.mean == pytest.approx(1 / 3)
    assert result.longer_wins.mean == pytest.approx(3 / 4)
    page = describe(result)
    assert "n_asked 10, n_valid 8, n_tie 1, n_invalid 1, n_failed 1" in page
    assert "statistically tied" in page


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
    assert 0.99 < found.low <= found.mean <= found.high <= 1


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
    asked = simulation.comparisons(400, rng)
    orders = ("policy always first", "both orders")
    one, both = (win_rate(simulation.judged(asked, order, rng, **{bias: size})) for order in orders)

    def holds(interval):
        return interval.low <= simulation.TRUTH <= interval.high

    if bias == "position":
        assert holds(both.win_rate)
        assert not holds(one.win_rate)
        assert both.flips.low > 0.3
    else:
        assert holds(both.length_controlled)
        assert not holds(both.win_rate)
        assert not holds(one.win_rate)
        assert both.longer_wins.low > 0.5
