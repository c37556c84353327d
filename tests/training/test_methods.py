"""What every registered method must keep, whoever wrote it."""

import pytest
import torch
from conftest import completion, make_pairs

from suite.data.preference_data import Ranking
from suite.errors import UserError
from suite.interfaces import LogProbUnavailable, Policy, TrainingData
from suite.policies.causal_lm import CausalLMPolicy
from suite.registry import load_method, method_targets, resolve
from suite.runs.run_store import RunSpec, open_run
from suite.runs.stages import snapshots
from suite.training.loop import OptimConfig

NAMES = sorted(method_targets())
TRAINED = [name for name in NAMES if not load_method(name).evaluated_from_pool]


class CountGood:
    def __call__(self, prompts, completions):
        return [float(c.count("good")) for c in completions]

    def save(self, directory):
        directory.mkdir(parents=True)

    @classmethod
    def load(cls, directory):
        return cls()


def data_for(method, policy, prompts):
    pairs = make_pairs(policy, prompts, 16)
    rankings = [
        Ranking(
            (p.chosen, p.rejected), (p.chosen_reward, p.rejected_reward), (p.reference_chosen_logps, p.reference_rejected_logps)
        )
        for p in pairs
    ]
    have = {"pairs": pairs, "rankings": rankings, "prompts": prompts, "reward": CountGood(), "texts": [p.chosen for p in pairs]}
    return TrainingData(**{name: have[name] for name in method.needs})


def train(name, root, policy, prompts, *, seed=0, **optim):
    method = load_method(name)()
    settings = {}
    if "optim" in method.Config.__dataclass_fields__:
        settings["optim"] = OptimConfig(
            **{"lr": 1e-3, "batch_size": 16, "warmup_steps": 1, "num_snapshots": 2, "num_epochs": 4, **optim}
        )
    with open_run(root, RunSpec("train", {"seed": seed, "method": name})) as run:
        return run, method.train(data_for(method, policy, prompts), policy, method.Config(**settings), run)


def mean_reward(policy, prompts):
    drawn = policy.sample(prompts, num_samples=150, max_new_tokens=5, seed=9)
    return sum(c.ids.count(1) for some in drawn for c in some) / (150 * len(prompts))


@pytest.mark.parametrize("name", NAMES)
def test_it_satisfies_the_contract(name, tmp_path, gpt2, prompts):
    method = load_method(name)
    assert method.needs <= {"texts", "pairs", "rankings", "prompts", "reward"}
    _, policy = train(name, tmp_path, gpt2, prompts)
    assert isinstance(policy, Policy)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "sft"])
def test_it_improves_the_reward(name, tmp_path, gpt2, prompts):
    _, policy = train(name, tmp_path, gpt2, prompts)
    assert mean_reward(policy, prompts) > mean_reward(gpt2, prompts) + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_left_untouched(name, tmp_path, gpt2, prompts):
    before = [p.detach().clone() for p in gpt2.model.parameters()]
    train(name, tmp_path, gpt2, prompts)
    assert all(torch.equal(a, b) for a, b in zip(before, gpt2.model.parameters(), strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_same_seed_same_policy_other_seed_another(name, tmp_path, gpt2, prompts):
    probes = [completion(prompts[0], 1, 2, 0), completion(prompts[2], 5, 5, 5)]
    first, again, other = (
        train(name, tmp_path / folder, gpt2, prompts, seed=seed)[1].log_prob(probes)
        for folder, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", TRAINED)
def test_snapshots_are_kept_and_the_last_is_the_result(name, tmp_path, gpt2, prompts):
    run, policy = train(name, tmp_path, gpt2, prompts)
    kept = snapshots(run.directory)
    assert len(kept) == 2
    probe = [completion(prompts[0], 1, 2, 0)]
    assert torch.allclose(CausalLMPolicy.load(kept[-1]).log_prob(probe), policy.log_prob(probe), atol=1e-6)
    assert not torch.allclose(CausalLMPolicy.load(kept[0]).log_prob(probe), policy.log_prob(probe), atol=1e-6)


def test_unknown_methods_get_a_hint():
    with pytest.raises(UserError, match="did you mean 'unlikelihood'"):
        resolve("unlikelyhood")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_method("suite.training.dpo:Nothing")


def test_best_of_n_keeps_the_best_and_has_no_log_prob(gpt2, prompts, tmp_path):
    from baselines.best_of_n import BestOfNPolicy

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
    import numpy as np

    from baselines.best_of_n import BestOfNPolicy

    policy = BestOfNPolicy(gpt2, CountGood(), n=4)
    drawn = policy.sample(prompts, num_samples=400, max_new_tokens=5, seed=3)
    real = np.array([[c.ids.count(1) for c in some] for some in drawn])
    pool = np.array(
        [[c.ids.count(1) for c in some] for some in gpt2.sample(prompts, num_samples=128, max_new_tokens=5, seed=4)]
    )
    expected = policy.expected_rewards(pool)
    assert expected == pytest.approx(real.mean(axis=1), abs=0.35)
    assert (expected > pool.mean(axis=1) + 0.2).all()
