import pytest

from suite.maths.frontier import mean_frontier_reward, pareto_indices


def test_only_points_that_no_cheaper_point_beats():
    kl, reward = [1.0, 2.0, 3.0, 4.0, 2.0], [0.6, 0.5, 0.8, 0.8, 0.7]
    assert pareto_indices(kl, reward).tolist() == [0, 4, 2]


def test_mean_reward_by_hand():
    # budgets 0–1: 0.5 (reference); 1–3: 0.6; 3–4: 0.9 → (0.5 + 2·0.6 + 0.9) / 4
    value = mean_frontier_reward([1.0, 3.0, 9.0], [0.6, 0.9, 1.0], reference_reward=0.5, max_kl=4.0)
    assert value == pytest.approx((0.5 + 1.2 + 0.9) / 4)


def test_no_point_within_the_budget_counts_as_the_reference():
    assert mean_frontier_reward([50.0], [1.0], reference_reward=0.5, max_kl=4.0) == pytest.approx(0.5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="max_kl"):
        mean_frontier_reward([1.0], [1.0], reference_reward=0.5, max_kl=0.0)
    with pytest.raises(ValueError, match="reward"):
        pareto_indices([1.0], [1.0, 2.0])
