"""Intervals over training seeds and prompts: by hand, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from suite.maths.seeds_and_prompts import detectable_gap, estimate, simultaneous


def test_one_seed_is_the_t_interval_over_prompts():
    x = np.random.default_rng(0).normal(0.1, 0.3, 50)
    found = estimate(x[None, None])
    assert found.mean[0] == pytest.approx(x.mean())
    assert found.variance[0] == pytest.approx(x.var(ddof=1) / 50)
    assert found.df[0] == 49
    assert found.p[0] == pytest.approx(stats.ttest_1samp(x, 0).pvalue)


def test_variance_components_by_hand():
    """Two seeds, four prompts: means .5 and .7 of the seeds; without interaction, so that nothing is left of the residual."""
    seed, prompt = np.array([[0.5], [0.7]]), np.array([-0.3, -0.1, 0.1, 0.3])
    found = estimate((seed + prompt)[None])
    assert found.mean[0] == pytest.approx(0.6)
    of_seeds, of_prompts = 0.02 / 2, prompt.var(ddof=1) / 4
    assert found.variance[0] == pytest.approx(of_seeds + of_prompts)
    assert found.df[0] == pytest.approx((of_seeds + of_prompts) ** 2 / (of_seeds**2 / 1 + of_prompts**2 / 3))


def test_seeds_that_agree_by_chance_do_not_make_the_sampling_noise_go_away():
    """Both seeds have the same mean, but scatter by 1 on each prompt: the mean of 2·100 draws is not known better than that."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 100)
    noise -= noise.mean()
    x = np.stack([noise, -noise])[None]
    assert np.ptp(x.mean(axis=2)) < 1e-12
    assert estimate(x).variance[0] >= 0.8 * noise.var() / 100


def test_what_is_no_table_is_refused():
    for values in (np.ones((2, 3)), np.ones((1, 2, 1)), np.full((1, 2, 3), np.nan)):
        with pytest.raises(ValueError, match="expected finite numbers of shape"):
            estimate(values)


def test_no_difference_at_all_has_no_width_and_no_evidence():
    found = simultaneous(np.zeros((2, 3, 10)))
    assert found.low.tolist() == found.high.tolist() == [0.0, 0.0]
    assert found.p.tolist() == [1.0, 1.0]


def table(rng, comparisons, seeds, prompts, *, spread, alike):
    """Made-up differences without any true one; `alike` is the share of each variance that all comparisons have in common."""

    def effect(shape, scale):
        return scale * (np.sqrt(alike) * rng.normal(size=shape) + np.sqrt(1 - alike) * rng.normal(size=(comparisons, *shape)))

    return effect((seeds, 1), spread) + effect((1, prompts), 0.1) + effect((seeds, prompts), 0.3)


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_all_intervals_hold_at_once(spread):
    """Twelve comparisons, five seeds: 95 % of 300 tables, give or take 2.5 standard errors."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(300):
        found = simultaneous(table(rng, 12, 5, 128, spread=spread, alike=0.5), draws=500)
        held = ((found.low <= 0) & (found.high >= 0)).all()
        assert held == (found.p >= 0.05).all() or abs(found.p.min() - 0.05) < 0.01
        inside += held
    assert 0.92 <= inside / 300 <= 0.98


def test_comparisons_that_say_the_same_are_paid_for_once():
    rng = np.random.default_rng(0)
    one = table(rng, 1, 5, 64, spread=0.01, alike=0.0)
    repeated = np.repeat(one, 10, axis=0)
    alone, ten = simultaneous(one), simultaneous(repeated)
    apart = simultaneous(table(rng, 10, 5, 64, spread=0.01, alike=0.0))
    assert alone.quantile[0] <= ten.quantile[0] < 0.9 * apart.quantile.mean()


def test_the_gap_that_will_show_is_found_four_times_in_five():
    """A true difference of that size in one of twelve comparisons, five seeds that scatter by .01, 200 prompts by .25."""
    gap, rng, found = detectable_gap(12, 5, 200, scatter=0.25, spread=0.01), np.random.default_rng(5), 0
    for _ in range(200):
        values = rng.normal(0, 0.01, (12, 5, 1)) + rng.normal(0, 0.125, (12, 1, 200)) + rng.normal(0, 0.2165, (12, 5, 200))
        values[0] += gap
        found += simultaneous(values, draws=500).low[0] > 0
    assert 0.68 <= found / 200 <= 0.92, found
    assert detectable_gap(12, 5, 800, scatter=0.25, spread=0.01) < gap < detectable_gap(12, 3, 200, scatter=0.25, spread=0.01)


def test_the_same_table_gives_the_same_intervals():
    values = table(np.random.default_rng(0), 4, 3, 32, spread=0.01, alike=0.5)
    assert np.array_equal(simultaneous(values).high, simultaneous(values).high)


def test_a_difference_that_is_the_same_everywhere_has_no_interval():
    """But that of a policy from itself, which is 0 by construction."""
    x = np.random.default_rng(0).normal(size=(3, 20))
    found = simultaneous(np.stack([x, (x + 0.5) - x, x - x]), draws=200)
    assert np.isnan([found.low[1], found.high[1], found.p[1]]).all()
    assert (found.low[2], found.high[2], found.p[2]) == (0, 0, 1)
    assert np.isfinite([found.low[0], found.high[0]]).all()
