import numpy as np
import pytest
from conftest import completion

from baselines.best_of_n import BestOfNPolicy
from suite.interfaces import LogProbUnavailable
from suite.maths.best_of_n import expected_best_of_n


class CountGood:
    def __call__(self, prompts, completions):
        return [float(c.count("good")) for c in completions]

    def save(self, directory):
        directory.mkdir(parents=True)

    @classmethod
    def load(cls, directory):
        return cls()


def test_best_of_n_keeps_the_best_and_has_no_log_prob(gpt2, prompts, tmp_path):
    policy = BestOfNPolicy(gpt2, CountGood(), n=4)
    kept = policy.sample(prompts, num_samples=3, max_new_tokens=5, seed=0)
    pool = gpt2.sample(prompts, num_samples=12, max_new_tokens=5, seed=0)
    for some, candidates in zip(kept, pool, strict=True):
        assert len(some) == 3
        for k, best in enumerate(some):
            group = candidates[4 * k : 4 * k + 4]
            assert best.ids.count(1) == max(c.ids.count(1) for c in group)
    for call in (policy.log_prob, policy.next_token_log_probs):
        with pytest.raises(LogProbUnavailable):
            call([completion(prompts[0], 1)])
    policy.save(tmp_path / "saved")
    loaded = BestOfNPolicy.load(tmp_path / "saved")
    assert loaded.n == 4
    assert loaded.sample(prompts, num_samples=1, max_new_tokens=5, seed=0)[0][0].ids == kept[0][0].ids


def test_best_of_n_from_the_pool_agrees_with_really_sampling_it(gpt2, prompts):
    """Order statistics of one pool of 128 against 400 independent best-of-4 draws."""
    policy = BestOfNPolicy(gpt2, CountGood(), n=4)
    drawn = policy.sample(prompts, num_samples=400, max_new_tokens=5, seed=3)
    real = np.array([[c.ids.count(1) for c in some] for some in drawn])
    pool = np.array(
        [[c.ids.count(1) for c in some] for some in gpt2.sample(prompts, num_samples=128, max_new_tokens=5, seed=4)]
    )
    expected = expected_best_of_n(pool, 4)
    assert expected == pytest.approx(real.mean(axis=1), abs=0.35)
    assert (expected > pool.mean(axis=1) + 0.2).all()
