"""What the learning-rate search tries of every method, and how it chooses."""

import pandas as pd

from suite.analysis.rate_search import OFFLINE_CHANGES, PPO_CHANGES, best_of, changes_of
from suite.study.profiles import SEARCHED


def test_of_equal_scores_the_largest_rate_is_taken_of_every_method_alike():
    scores = pd.DataFrame([
        {"method": "a", "lr": 1e-5, "setting": "", "score": 0.7},
        {"method": "a", "lr": 1e-4, "setting": "", "score": 0.7 + 1e-12},
        {"method": "a", "lr": 1e-3, "setting": "", "score": 0.6},
        {"method": "b", "lr": 1e-4, "setting": "", "score": 0.5},
        {"method": "b", "lr": 1e-5, "setting": "", "score": 0.5 + 1e-12},
        {"method": "b", "lr": 1e-4, "setting": "more", "score": 0.5},
        {"method": "diverged", "lr": 1e-4, "setting": "", "score": float("nan")},
    ])  # fmt: skip
    best = best_of(scores)
    assert best[["method", "lr", "setting"]].to_numpy().tolist() == [["a", 1e-4, ""], ["b", 1e-4, ""]]


def test_every_method_has_as_many_candidates():
    assert len(PPO_CHANGES) == len(OFFLINE_CHANGES)
    tried = {name: len(changes_of(name)) for name in SEARCHED}
    assert tried.pop("ppo_gt") == 0  # it takes what is best for PPO
    assert set(tried.values()) == {len(PPO_CHANGES)}
