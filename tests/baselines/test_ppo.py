"""PPO's parts by hand, its loop on the exact world against the optimum."""

import json
import math

import numpy as np
import pytest
import torch

from baselines.ppo import PPO, PPOGT, KLExplosion, PPOConfig, next_beta
from baselines.ppo_rollout import RewardScale, draw_rollout, prompts_of_step, shaped_rewards
from suite.check.exact_world import (
    MAX_NEW_TOKENS,
    ExactWorld,
    TableReward,
    exact_kl,
    expected_reward,
    optimum,
    tiny_language_model,
    word_tokenizer,
)
from suite.check.trial import QuietRun
from suite.data.preference_data import Prompt
from suite.engine.store import RunSpec
from suite.interfaces import TrainingData
from suite.maths.kl import sequence_kl
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.loop import NonFiniteLoss
from suite.training.settings import OptimConfig

WORLD = ExactWorld()
REWARDS = WORLD.word_rewards()
SETTINGS = {"beta": 0.2, "normalise_rewards": False, "num_steps": 64, "epochs_per_step": 4}


@pytest.fixture(scope="module")
def reference():
    return CausalLMPolicy(tiny_language_model(), word_tokenizer())


def table(policy):
    with torch.no_grad():
        return WORLD.log_probs(policy.model).double().log_softmax(-1)


def train(root, reference, reward=None, method=PPO, seed=0, **settings):
    optim = {"lr": 1e-3, "micro_batch_size": 256, "num_snapshots": 1, **settings.pop("optim", {})}
    config = PPOConfig(optim=OptimConfig(**optim), **{**SETTINGS, **settings})
    run = QuietRun(root, RunSpec("train", {"seed": seed}))
    run.directory.mkdir(parents=True)
    reward = reward or TableReward.of(WORLD, REWARDS)
    data = TrainingData(prompts=WORLD.prompts, reward=reward, gold_reward=reward, max_new_tokens=MAX_NEW_TOKENS)
    policy = method().train(data, reference, config, run)
    return policy, [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]


def test_exact_world_fixed_beta_reaches_the_optimum(tmp_path, reference):
    """Within 0.02 nats of KL(π‖π*) and 1 % of the objective's maximum, measured from the reference's value."""
    policy, _ = train(tmp_path, reference, beta=1.0, samples_per_step=256, num_steps=80, final_lr=0.0)
    start = table(reference)
    best, log_partition = optimum(start, REWARDS, beta=1.0)
    assert exact_kl(start, best).mean() > 0.5
    assert exact_kl(table(policy), best).mean() <= 0.02
    objective = (expected_reward(table(policy), REWARDS) - exact_kl(table(policy), start)).mean()
    assert objective >= 0.99 * log_partition.mean()


SLOW_TARGETS = [*(pytest.param(target, seeds, marks=pytest.mark.slow) for target, seeds in ((0.1, 4), (0.3, 3))), (1.0, 1)]


@pytest.mark.parametrize(("target", "seeds"), SLOW_TARGETS)
def test_exact_world_the_controller_holds_its_target(tmp_path, reference, target, seeds):
    """Mean KL over the last quarter of the run within 10 % of the target, averaged over seeds.

    A single run scatters by some 10 % at 0.1 nats, where k1 of 512 completions is itself uncertain by 20 %; hence the seeds,
    and a smaller learning rate than for the real task.
    """
    settings = {"target_kl": target, "beta": 0.5, "samples_per_step": 512, "horizon": 0.03, "final_lr": 0.0}
    settings["minibatch_size"] = 256
    found = []
    for seed in range(seeds):
        _, rows = train(tmp_path / str(seed), reference, seed=seed, optim={"lr": 6e-4}, **settings)
        found.append(np.mean([row["kl"] for row in rows[-len(rows) // 4 :]]))
    assert np.mean(found) == pytest.approx(target, rel=0.1)


def test_exact_world_the_controller_has_no_limit_cycle(tmp_path, reference):
    """At 1 nat, where k1 of 256 completions is known to a tenth, few steps of the second half are a quarter off target. With a
    penalty that also answered the KL at hand, β·KL/target, more than half of them were, and β swung by a factor of three.
    """
    settings = {"target_kl": 1.0, "beta": 0.5, "samples_per_step": 256, "horizon": 0.05, "minibatch_size": 128}
    _, rows = train(tmp_path, reference, optim={"lr": 6e-4}, **settings)
    late = rows[len(rows) // 2 :]
    assert np.mean([abs(row["kl"] - 1) > 0.25 for row in late]) < 0.25
    assert max(row["beta"] for row in late) < 1.5 * min(row["beta"] for row in late)


def test_the_logged_kl_and_the_first_ratio(tmp_path, reference):
    _, rows = train(tmp_path, reference, num_steps=6, samples_per_step=64)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert all(row["first_ratio"] <= 1e-5 for row in rows)
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert [row["lr"] for row in rows] == pytest.approx([1e-3 * (1 - 0.75 * k / 6) for k in range(6)], rel=1e-4)
    assert rows[-1]["tokens_scored"] > 3 * rows[-1]["tokens_sampled"] > 3 * 6 * 64


def test_a_rollout_agrees_with_the_library(reference):
    """KL, log-probs and rewards of a rollout of another policy against the functions everyone uses."""
    policy = CausalLMPolicy(tiny_language_model(1), word_tokenizer())
    head = torch.nn.Linear(32, 1)
    config = PPOConfig(
        whiten_advantages=False, normalise_rewards=False, gamma=1.0, lam=1.0, optim=OptimConfig(micro_batch_size=7)
    )
    reward = TableReward.of(WORLD, REWARDS)
    rollout = draw_rollout(
        policy, head, reference, reward, WORLD.prompts, num_samples=20, max_new_tokens=3, seed=3, beta=0.4, config=config,
        scale=RewardScale(),
    )  # fmt: skip
    (of_policy, mask), (of_reference, _) = (p.completion_token_log_probs(rollout.completions) for p in (policy, reference))
    assert torch.equal(rollout.mask, mask)
    assert torch.allclose(rollout.logps, of_policy, atol=1e-5)
    assert torch.allclose(rollout.kl, sequence_kl(of_policy, of_reference, mask, estimator="k1"), atol=1e-5)
    given = reward([c.prompt.text for c in rollout.completions], [c.text for c in rollout.completions])
    assert rollout.scores.tolist() == pytest.approx(given)
    # with γ = λ = 1 the return of the first token is the whole shaped reward: score - β·KL
    assert torch.allclose(rollout.returns[:, 0], rollout.scores.float() - 0.4 * rollout.kl, atol=1e-5)
    assert torch.allclose(rollout.advantages[:, 0], rollout.returns[:, 0] - rollout.values[:, 0], atol=1e-5)


def test_shaped_rewards_by_hand():
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 9.0]])
    reference_logps = torch.tensor([[-1.5, -1.0, -3.0], [-2.0, -1.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    shaped = shaped_rewards(logps, reference_logps, mask, torch.tensor([10.0, 20.0]), beta=0.5)
    assert torch.allclose(shaped, torch.tensor([[-0.25, 0.5, 10.0], [-0.5, 20.0, 0.0]]))


def test_the_controller_by_hand():
    """Horizon 0.05 of 40 steps: K = ½ per step; the error is cut at ±0.2."""
    config = PPOConfig(target_kl=2.0, horizon=0.05, num_steps=40)
    assert next_beta(1.0, 2.2, config) == pytest.approx(1.05)
    assert next_beta(1.0, 100.0, config) == pytest.approx(1.1)
    assert next_beta(1.0, 0.0, config) == pytest.approx(0.9)
    assert next_beta(0.7, 100.0, PPOConfig(target_kl=None)) == 0.7
    assert next_beta(1.0, 0.0, PPOConfig(target_kl=2.0, horizon=0.05, num_steps=2)) == 0.5  # never below 0


def test_logit_rewards(reference):
    """P enters as half its log-odds; what is logged stays P; rewards that are no probabilities are refused."""

    def rollout(reward):
        config = PPOConfig(logit_rewards=True, normalise_rewards=False, whiten_advantages=False, lam=1.0)
        return draw_rollout(
            reference, torch.nn.Linear(32, 1), reference, reward, WORLD.prompts, num_samples=8, max_new_tokens=3, seed=0,
            beta=0.0, config=config, scale=RewardScale(),
        )  # fmt: skip

    drawn = rollout(lambda prompts, completions: [0.9] * len(completions))
    assert drawn.scores.tolist() == [0.9] * 16
    assert drawn.returns[:, 0].tolist() == pytest.approx([0.5 * math.log(9)] * 16)
    with pytest.raises(ValueError, match=r"expected rewards in \(0, 1\), got 2 to 2"):
        rollout(lambda prompts, completions: [2.0] * len(completions))


def test_the_scale_is_that_of_the_first_rewards():
    first, later = (torch.randn(2, 40, generator=torch.Generator().manual_seed(0)) * 3 + 2).unbind()
    scale = RewardScale()
    assert torch.allclose(scale.normalise(first), (first - first.mean()) / first.std(unbiased=False), atol=1e-5)
    expected = (later - first.mean()) / first.std(unbiased=False)
    assert torch.allclose(scale.normalise(later), expected, atol=1e-5)
    assert torch.equal(RewardScale(*scale.state).normalise(later), scale.normalise(later))


def test_first_rewards_that_are_all_equal_leave_the_unit_as_it_is():
    scale = RewardScale()
    assert scale.normalise(torch.full((8,), 0.1, dtype=torch.float64)).abs().max() < 1e-12
    assert scale.normalise(torch.tensor([0.1, 1.1], dtype=torch.float64)).tolist() == pytest.approx([0.0, 1.0])


def test_every_prompt_has_its_turn():
    prompts = [Prompt(str(i), (1,), "") for i in range(10)]
    first = [p.id for step in range(2) for p in prompts_of_step(prompts, 5, 0, step)[0]]
    second = [p.id for step in range(2, 4) for p in prompts_of_step(prompts, 5, 0, step)[0]]
    assert sorted(first) == sorted(second) == sorted(p.id for p in prompts)
    assert first != second
    assert prompts_of_step(prompts, 40, 0, 0)[1] == 4


@pytest.mark.parametrize(("prompts", "samples"), [(10, 5), (10, 16), (24, 128), (7, 12), (3, 128), (64, 64)])
def test_a_step_draws_exactly_its_samples(prompts, samples):
    """16 samples of 10 prompts: 8 prompts, 2 each; 10 prompts once would be 10 samples only."""
    chosen, each = prompts_of_step([Prompt(str(i), (1,), "") for i in range(prompts)], samples, 0, 3)
    assert len(chosen) * each == samples
    assert len({p.id for p in chosen}) == len(chosen)


def test_with_normalised_rewards_their_unit_does_not_matter(tmp_path, reference):
    reward = TableReward.of(WORLD, REWARDS)

    def other(prompts, completions):
        return [1000 * r + 50 for r in reward(prompts, completions)]

    settings = {"normalise_rewards": True, "num_steps": 10, "samples_per_step": 64}
    one, _ = train(tmp_path / "a", reference, reward, **settings)
    same, _ = train(tmp_path / "b", reference, other, **settings)
    assert torch.allclose(table(one), table(same), atol=1e-2)
    assert exact_kl(table(one), table(reference)).mean() > 0.05


def test_a_penalty_for_the_missing_eos_makes_completions_end(tmp_path, reference):
    def nothing(prompts, completions):
        return [0.0] * len(prompts)

    _, rows = train(tmp_path, reference, nothing, no_eos_penalty=3.0, num_steps=30, beta=0.1)
    assert rows[0]["no_eos"] > 0.6
    assert rows[-1]["no_eos"] < 0.5 * rows[0]["no_eos"]


def test_ppo_gt_is_ppo_given_the_other_reward(tmp_path, reference):
    one, _ = train(tmp_path / "a", reference, num_steps=4, samples_per_step=32)
    same, _ = train(tmp_path / "b", reference, method=PPOGT, num_steps=4, samples_per_step=32)
    assert torch.equal(table(one), table(same))
    assert PPOGT.needs == {"prompts", "gold_reward"}


def test_guards_stop_with_the_reason(tmp_path, reference):
    with pytest.raises(KLExplosion, match=r"step \d+: mean KL .* max_kl = 0.5"):
        train(tmp_path / "a", reference, beta=0.0, max_kl=0.5, num_steps=40)

    def broken(prompts, completions):
        return [math.nan] * len(prompts)

    with pytest.raises(NonFiniteLoss, match="step 1"):
        train(tmp_path / "b", reference, broken, num_steps=2)
    with pytest.raises(ValueError, match="needs prompts"):
        PPO().train(TrainingData(prompts=WORLD.prompts), reference, PPOConfig(), QuietRun(tmp_path, RunSpec("train", {})))


def test_a_rollout_that_moved_too_far_ends_early(tmp_path, reference):
    _, rows = train(tmp_path, reference, num_steps=5, samples_per_step=64, epochs_per_step=8, max_approx_kl=1e-6)
    assert {row["epochs"] for row in rows} <= {1.0, 2.0}
