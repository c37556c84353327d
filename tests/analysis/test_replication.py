"""Words of disjoint sets of seeds, from made-up frontiers."""

import numpy as np
import pytest

from suite.analysis.replication import changes, disjoint_sets, predicted_changes, simulated_frontiers, words_of_sets
from suite.maths.frontier import Frontier

PROMPTS = 60


def frontiers(gap, spread, seeds=12):
    """DPO, and Mine that is better by `gap`, with seeds that scatter by `spread` on their own; policies at 2 and 6 nats."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.1, PROMPTS)
    found = {}
    for name, lead in (("DPO", 0.0), ("Mine", gap)):
        reward = [
            0.5 + difficulty + np.stack([
                np.zeros(PROMPTS), *(g + lead + shift + rng.normal(0, 0.05, PROMPTS) for g in (0.2, 0.3))
            ])
            for shift in rng.normal(0, spread, seeds)
        ]  # fmt: skip
        found[name] = Frontier(range(seeds), reward, [np.full((3, PROMPTS), [[0.0], [2.0], [6.0]])] * seeds)
    return found


def test_sets_are_disjoint():
    assert disjoint_sets(range(12)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert disjoint_sets([0, 2, 5, 7], size=2) == [[0, 2], [5, 7]]
    assert disjoint_sets([0, 1]) == []


def test_a_clear_lead_is_the_same_word_everywhere():
    found = frontiers(0.2, 0.005)
    words = words_of_sets(found, disjoint_sets(range(12)), against="DPO", budgets=(1.0, 3.0))
    counted = changes(words).set_index("kl_budget")
    assert counted.loc["3", "words"] == "better, better, better, better"
    assert (counted.loc["3", "pairs"], counted.loc["3", "changed"], counted.loc["3", "reversed"]) == (6, 0, 0)
    assert "1" not in counted.index  # no policy there
    predicted = predicted_changes(found, against="DPO", budgets=(3.0,), simulated=30).set_index("kl_budget")
    assert predicted.loc["3", "predicted"] < 0.1


def test_changed_words_are_counted_and_reversed_ones_named():
    found = frontiers(0.0, 0.001, seeds=6)
    lead = [0.3] * 3 + [-0.3] * 3
    found["Mine"] = Frontier(range(6), [r + s for r, s in zip(found["Mine"].reward, lead, strict=True)], found["Mine"].kl)
    row = changes(words_of_sets(found, [[0, 1, 2], [3, 4, 5]], against="DPO", budgets=(3.0,))).set_index("kl_budget").loc["3"]
    assert (row["words"], row["changed"], row["reversed"]) == ("better, worse", 1, 1)


def test_simulated_seeds_scatter_as_the_real_ones_do():
    found = frontiers(0.0, 0.05)
    rng = np.random.default_rng(1)
    real = np.var(found["Mine"].by_seed([3.0]), ddof=1)
    drawn = [simulated_frontiers(found, 3, rng)["Mine"].by_seed([3.0])[:, 0] for _ in range(300)]
    assert np.var(drawn) == pytest.approx(real, rel=0.25)
    assert np.mean(drawn) == pytest.approx(found["Mine"].at([3.0])[0], abs=0.01)
