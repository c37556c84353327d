import math
from itertools import combinations

import numpy as np
import pytest

from suite.maths.best_of_n import expected_best_of_n
from suite.maths.statistics import (
    clustered_mean_interval,
    clustered_share_interval,
    holm,
    mean_interval,
    paired_difference,
    t_interval,
    wilson_interval,
)


def test_interval_covers_about_as_often_as_it_says():
    """400 skewed samples of 64: a nominal 95 % interval must hold the mean in 90 to 99 % of them."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        interval = mean_interval(rng.beta(0.5, 1.5, size=64), seed=seed, resamples=500)
        hits += interval.low <= 0.25 <= interval.high
    assert 0.90 <= hits / 400 <= 0.99


def test_same_seed_same_interval():
    x = np.random.default_rng(1).random(50)
    assert mean_interval(x, seed=3) == mean_interval(x, seed=3)
    assert mean_interval(x, seed=3) != mean_interval(x, seed=4)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=200)
    a, b = prompt + 0.1 + 0.05 * rng.normal(size=200), prompt + 0.05 * rng.normal(size=200)
    paired = paired_difference(a, b)
    assert paired.low > 0.05
    assert paired.high < 0.15
    with pytest.raises(ValueError, match="same prompts"):
        paired_difference(a, b[:-1])


def test_clusters_are_resampled_whole():
    """Copies of one value are one observation: the interval is that of the clusters, not of the copies."""
    rng = np.random.default_rng(0)
    of_prompt = rng.random(60)
    once = mean_interval(of_prompt, seed=0)
    copied = clustered_mean_interval(np.repeat(of_prompt, 6), np.repeat(np.arange(60), 6), seed=0)
    assert copied.mean == pytest.approx(once.mean)
    assert copied.n == 60
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.1)
    apart = clustered_mean_interval(rng.random(360), np.arange(360))
    assert apart.high - apart.low < 0.6 * (copied.high - copied.low)
    uneven = clustered_mean_interval([1, 1, 1, 0, 0, 1], list("aaabcd"))
    assert uneven.mean == pytest.approx(4 / 6)  # of values, not of clusters
    assert math.isnan(clustered_mean_interval([0.5] * 6, list("aaabcd")).low)
    for values, clusters in (([1.0], ["a", "b"]), ([], []), ([np.nan], ["a"])):
        with pytest.raises(ValueError, match="values"):
            clustered_mean_interval(values, clusters)


@pytest.mark.parametrize("bad", [[], [[1.0]], [1.0, float("nan")]])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match="values"):
        mean_interval(bad)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_expected_best_of_n_is_the_mean_over_all_subsets(n):
    values = np.array([[0.3, 0.9, 0.1, 0.5, 0.5, 0.2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    expected = [np.mean([max(subset) for subset in combinations(row, n)]) for row in values]
    assert expected_best_of_n(values, n) == pytest.approx(expected)


def test_expected_best_of_n_of_a_large_pool_is_finite():
    values = np.random.default_rng(0).random((2, 128))
    assert expected_best_of_n(values, 128) == pytest.approx(values.max(axis=1))
    assert expected_best_of_n(values, 1) == pytest.approx(values.mean(axis=1))
    with pytest.raises(ValueError, match="pool size"):
        expected_best_of_n(values, 129)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_best_by_another_score_over_all_subsets(n):
    rng = np.random.default_rng(2)
    rewards, scores = rng.random((3, 7)), rng.random((3, 7))
    expected = [
        np.mean([row[max(group, key=lambda i: by[i])] for group in combinations(range(7), n)])
        for row, by in zip(rewards, scores, strict=True)
    ]
    assert expected_best_of_n(rewards, n, scores=scores) == pytest.approx(expected)
    assert expected_best_of_n(rewards, n, scores=rewards) == pytest.approx(expected_best_of_n(rewards, n))
    with pytest.raises(ValueError, match="scores"):
        expected_best_of_n(rewards, n, scores=scores[:2])


def test_t_interval_by_hand():
    assert t_interval([1.0, 3.0]) == (2.0, pytest.approx(2 - 12.7062), pytest.approx(2 + 12.7062), 2)
    assert np.isnan(t_interval([1.0]).low)
    with pytest.raises(ValueError, match="values"):
        t_interval([])


def test_wilson_by_hand():
    """8 of 10 at 95 %: 0.4902 to 0.9433 (Wilson 1927)."""
    found = wilson_interval(8, 10)
    assert (found.mean, found.n) == (0.8, 10)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson_interval(0, 5).low == 0
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(6, 5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_many_units_get_the_normal_interval_which_agrees():
    x = np.random.default_rng(0).beta(0.4, 0.6, 2001)
    normal, bootstrap = mean_interval(x), mean_interval(x[:2000])
    assert normal.high - normal.low == pytest.approx(bootstrap.high - bootstrap.low, rel=0.05)
    twice = clustered_mean_interval(np.repeat(x, 2), np.repeat(np.arange(2001), 2))
    assert (twice.low, twice.high) == (pytest.approx(normal.low, rel=1e-3), pytest.approx(normal.high, rel=1e-3))


def test_units_that_are_all_alike_are_no_certainty():
    """Nothing is known of what they might be, but with limits: a share 1 - 0.025^(1/n) may be as far away as these allow."""
    clusters = np.repeat(np.arange(20), 2)
    share = 1 - 0.025 ** (1 / 20)
    for found in (mean_interval([0.5] * 10), clustered_mean_interval([1, 0] * 20, clusters), t_interval([0.3, 0.3, 0.3])):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert clustered_share_interval([1, 0] * 20, clusters)[:3] == pytest.approx((0.5, 0.5 - share / 2, 0.5 + share / 2))
    share = 1 - 0.025 ** (1 / 12)
    assert paired_difference([1.0] * 12, [0.0] * 12, limits=(-1, 1))[:3] == pytest.approx((1, 1 - 2 * share, 1))
    assert paired_difference([0.5] * 12, [0.5] * 12, limits=(-1, 1))[:3] == pytest.approx((0, -share, share))
    assert clustered_share_interval([1.0], ["a"])[:3] == pytest.approx((1, 0.025, 1))


def test_a_policy_beside_itself_differs_by_nothing():
    """By construction: what has no limits is 0 in every unit only then."""
    x = np.random.default_rng(0).normal(size=30)
    assert paired_difference(x, x) == (0.0, 0.0, 0.0, 30)
    assert clustered_mean_interval(np.zeros(30), range(30)) == (0.0, 0.0, 0.0, 30)
    assert math.isnan(paired_difference(x, x - 0.5).low)


def test_all_right_is_no_certainty():
    """Of n prompts all won: Clopper and Pearson's lower limit is 0.025^(1/n); of none won, the upper one 1 - 0.025^(1/n)."""
    won = clustered_share_interval([1.0] * 8, ["a", "a", "b", "b", "c", "c", "d", "d"])  # four prompts, two answers each
    assert won == (1.0, pytest.approx(0.025**0.25), 1.0, 4)
    lost = clustered_share_interval([0.0] * 10, range(10))
    assert lost == (0.0, 0.0, pytest.approx(1 - 0.025**0.1), 10)
    mixed = np.array([1.0, 0.0, 0.5, 1.0, 1.0, 0.0])
    assert clustered_share_interval(mixed, range(6)) == clustered_mean_interval(mixed, range(6))
    with pytest.raises(ValueError, match="from 0 to 1"):
        clustered_share_interval([1.5], ["a"])


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_rounding_is_no_scatter(scale):
    x = scale * np.random.default_rng(0).normal(size=50)
    assert math.isnan(paired_difference(x, x - 0.5 * scale).low)
    assert math.isnan(t_interval(x[:5] - (x[:5] - 0.1 * scale)).high)
