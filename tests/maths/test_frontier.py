import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.maths.frontier import (
    Frontier,
    area_grid,
    hull_indices,
    pareto_indices,
    probability_of_improvement,
    reward_at_kl,
)


def test_only_points_that_no_cheaper_point_beats():
    kl, reward = [1.0, 2.0, 3.0, 4.0, 2.0], [0.6, 0.5, 0.8, 0.8, 0.7]
    assert pareto_indices(kl, reward).tolist() == [0, 4, 2]


def test_bad_arguments():
    with pytest.raises(ValueError, match="reward"):
        pareto_indices([1.0], [1.0, 2.0])


def test_the_hull_by_hand():
    """(0, .5) reference, (1, .7), (2, .72) below the line to (3, .9), (4, .8) beaten, (0.5, .4) worse than the reference."""
    kl, reward = [1.0, 2.0, 3.0, 4.0, 0.5], [0.7, 0.72, 0.9, 0.8, 0.4]
    assert hull_indices(kl, reward, reference_reward=0.5).tolist() == [0, 2]
    assert hull_indices([1.0, 2.0], [0.55, 0.9], reference_reward=0.5).tolist() == [1]  # steeper later: the first is skipped
    assert hull_indices([1.0], [0.4], reference_reward=0.5).tolist() == []
    assert hull_indices([0.0, 1.0], [0.6, 0.7], reference_reward=0.5).tolist() == [0, 1]


@given(
    points=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1)), min_size=1, max_size=8),
    at=st.floats(0, 25),
)
def test_the_hull_is_concave_and_no_pair_of_points_lies_above_it(points, at):
    kl, reward = map(np.array, zip(*points, strict=True))
    kept = hull_indices(kl, reward, reference_reward=0.5)
    xs, ys = np.append(0.0, kl[kept]), np.append(0.5, reward[kept])
    value = reward_at_kl(xs, ys, [at])[0]
    slopes = np.diff(ys)[np.diff(xs) > 1e-9] / np.diff(xs)[np.diff(xs) > 1e-9]
    assert (np.diff(slopes) <= 1e-6).all()
    everyone = [(0.0, 0.5), *points]
    for a in everyone:
        for b in everyone:
            if a[0] <= at <= b[0] and a[0] < b[0]:
                share = (at - a[0]) / (b[0] - a[0])
                assert value >= (1 - share) * a[1] + share * b[1] - 1e-9


def test_a_mixture_of_two_policies_spends_no_more_kl_than_the_line_says():
    """Why the hull may be drawn: KL(π‖π_ref) is convex in π."""
    rng = np.random.default_rng(0)
    a, b, reference = rng.dirichlet(np.ones(50), size=3)
    kl = lambda p: float((p * np.log(p / reference)).sum())  # noqa: E731
    for share in (0.1, 0.5, 0.8):
        assert kl((1 - share) * a + share * b) <= (1 - share) * kl(a) + share * kl(b)


@pytest.fixture
def two():
    """Two methods on 300 prompts: A has rewards .5, .7, .8 at KL 0, 1, 3; B, two seeds, .5, .72 ± .01 at KL 0, 2."""
    rng = np.random.default_rng(0)
    prompt = rng.normal(0, 0.1, 300)
    make = lambda means: np.stack([prompt + m + rng.normal(0, 0.02, 300) for m in means])  # noqa: E731
    exact = lambda values, means: values - values.mean(axis=-1, keepdims=True) + np.array(means)[..., None]  # noqa: E731
    ones = np.ones(300)
    a = Frontier([0], [exact(make([0.5, 0.7, 0.8]), [0.5, 0.7, 0.8])], [np.array([0 * ones, 1 * ones, 3 * ones])])
    seeds = [[0.5, 0.71], [0.5, 0.73]]
    b = Frontier([0, 1], [exact(make(m), m) for m in seeds], [np.array([0 * ones, 2 * ones])] * 2)
    return {"A": a, "B": b}


def test_reward_at_matched_kl_by_hand(two):
    a, b = two["A"], two["B"]
    assert a.at([0, 0.5, 1, 2, 3, 50]) == pytest.approx([0.5, 0.6, 0.7, 0.75, 0.8, 0.8])
    assert b.at([1.0]) == pytest.approx([0.61])
    assert b.by_seed([1.0])[:, 0] == pytest.approx([0.605, 0.615])
    # trapezoids up to 4 nats: .6 + .75·2 + .8
    assert a.at(area_grid(0.0, 4.0)).mean() == pytest.approx((0.6 + 1.5 + 0.8) / 4, abs=1e-4)
    assert area_grid(2.0, 4.0).mean() == pytest.approx(3.0)
    assert (a.prompts, list(b.seeds), b.of([1]).by_seed([2.0])[0, 0]) == (300, [0, 1], pytest.approx(0.73))


def test_the_frontier_of_two_seeds_is_the_mean_of_their_frontiers():
    """Seed 0 has .9 at 2 nats, seed 1 the same .9 at 4 nats, from .5: at 2 nats .9 and .7, mean .8. Averaging their KL first
    (3 nats) would say .5 + .4·2/3 = .767."""
    ones = np.ones(50)
    kl = [np.array([0 * ones, 2 * ones]), np.array([0 * ones, 4 * ones])]
    both = Frontier([0, 1], [np.array([0.5 * ones, 0.9 * ones])] * 2, kl)
    assert both.by_seed([2.0])[:, 0] == pytest.approx([0.9, 0.7])
    assert both.at([2.0])[0] == pytest.approx(0.8)
    assert both.span == (
        4.0,
        2.0,
    )  # the first seed has policies from 2 nats on, the second from 4: at no KL both on either side


def test_seeds_may_keep_different_policies(two):
    """Each chooses its hull on its own validation points."""
    ones = np.ones(300)
    more = Frontier([0, 1], [two["A"].reward[0], two["A"].reward[0][:2]], [two["A"].kl[0], np.array([0 * ones, 1 * ones])])
    assert more.at([3.0])[0] == pytest.approx((0.8 + 0.7) / 2)
    assert more.span == (1.0, 1.0)
    assert Frontier([0], [two["A"].reward[0][:1]], [0 * two["A"].kl[0][:1]]).span == (np.inf, 0.0)


@pytest.mark.parametrize("budget", [0.0, 0.25, 0.5, 1.0, 1.5, 3.0, 9.0])
def test_what_prompts_contribute_adds_up_to_the_frontier(two, budget):
    for frontier in two.values():
        assert frontier.by_prompt([budget]).mean(axis=2) == pytest.approx(frontier.by_seed([budget]))
    assert two["A"].by_prompt([budget]).shape == (1, 1, 300)


def test_contributions_spread_as_the_frontier_does_over_other_prompts():
    """With KLs that differ between prompts: the delta method's standard error beside that of whole resampled frontiers."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.1, 200)
    reward = np.stack([0.5 + difficulty, 0.7 + difficulty + rng.normal(0, 0.1, 200), 0.8 + rng.normal(0, 0.1, 200)])
    kl = np.stack([np.zeros(200), rng.gamma(4, 0.25, 200), rng.gamma(4, 0.75, 200) + difficulty])
    frontier = Frontier([0], [reward], [kl])
    drawn = []
    for _ in range(3000):
        index = rng.integers(0, 200, 200)
        drawn.append(reward_at_kl(kl[:, index].mean(axis=1), reward[:, index].mean(axis=1), [0.6, 2.0]))
    of_frontier = np.std(drawn, axis=0)
    contributions = frontier.by_prompt([0.6, 2.0])[0]
    assert contributions.std(axis=1, ddof=1) / np.sqrt(200) == pytest.approx(of_frontier, rel=0.05)


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([1, 2, 3, 4], [0, 2, 4, 0]) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    with pytest.raises(ValueError, match="same prompts"):
        probability_of_improvement([1.0], [1.0, 2.0])


def test_frontiers_must_fit():
    with pytest.raises(ValueError, match="expected two axes"):
        Frontier([0], [np.ones((1, 2, 3))], [np.ones((1, 2, 3))])
    with pytest.raises(ValueError, match="the shapes of reward"):
        Frontier([0], [np.ones((2, 3))], [np.ones((2, 4))])
    with pytest.raises(ValueError, match="the same prompts"):
        Frontier([0, 1], [np.ones((2, 3)), np.ones((2, 4))], [np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match="one entry per training seed"):
        Frontier([0, 1], [np.ones((2, 3))], [np.ones((2, 3))])
