"""Rejection sampling by hand: what is kept, what is trained on, what a stop leaves; and PPO that starts from its policy."""

import json
import math
from dataclasses import fields

import pytest
import torch

from baselines import ppo
from baselines.ppo import PPO, PPOConfig
from baselines.ppo_rollout import draw_rollout
from baselines.rejection_sampling import Best, RejectionSampling, RejectionSamplingConfig, best_of_each
from baselines.rejection_then_ppo import RejectionSamplingPPO, RejectionSamplingPPOConfig
from suite.check.exact_world import MAX_NEW_TOKENS, ExactWorld, TableReward, exact_kl, expected_reward, tiny_language_model
from suite.check.exact_world import word_tokenizer as words_of_the_world
from suite.check.trial import QuietRun, Stopped
from suite.data.preference_data import Completion, Prompt
from suite.engine.store import RunSpec
from suite.interfaces import TrainingData
from suite.maths.kl import sequence_kl
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.loop import NonFiniteLoss
from suite.training.settings import OptimConfig

WORLD = ExactWorld()
REWARDS = WORLD.word_rewards()
PROMPT = Prompt("p", (1,), "ant")
SMALL = {"n": 4, "num_steps": 4, "samples_per_step": 32, "epochs_per_step": 2, "minibatch_size": 3}


@pytest.fixture(scope="module")
def reference():
    return CausalLMPolicy(tiny_language_model(), words_of_the_world())


def table(policy):
    with torch.no_grad():
        return WORLD.log_probs(policy.model).double().log_softmax(-1)


def data_of(reward=None):
    return TrainingData(prompts=WORLD.prompts, reward=reward or TableReward.of(WORLD, REWARDS), max_new_tokens=MAX_NEW_TOKENS)


def run_in(root, kind=QuietRun):
    run = kind(root, RunSpec("train", {"seed": 0}))
    run.directory.mkdir(parents=True, exist_ok=True)
    return run


def config_of(method, optim=None, **settings):
    usual = {"lr": 1e-3, "num_snapshots": 2, "warmup_steps": 3}
    return method.Config(optim=OptimConfig(**{**usual, **(optim or {})}), **{**SMALL, **settings})


def train(root, reference, method=RejectionSampling, kind=QuietRun, reward=None, **settings):
    run = run_in(root, kind)
    policy = method().train(data_of(reward), reference, config_of(method, **settings), run)
    return policy, rows_of(run)


def rows_of(run):
    return [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]


def answer(text):
    return Completion(PROMPT, (len(text),), text, truncated=False)


def test_the_best_of_every_n_is_kept_and_the_first_of_equal_ones():
    drawn = [answer(text) for text in "abcdef"]
    kept = best_of_each(drawn, [1.0, 3.0, 2.0, 5.0, 4.0, 5.0], 3, [])
    assert [(best.completion.text, best.reward) for best in kept] == [("b", 3.0), ("d", 5.0)]


def test_an_earlier_best_stays_unless_a_new_sample_is_better():
    before = [Best(answer("old"), 3.0), Best(answer("older"), 4.0), Best(answer("oldest"), -1.0)]
    drawn = [answer(text) for text in "abcdef"]
    kept = best_of_each(drawn, [0.0, 2.0, 4.5, 1.0, -1.0, -2.0], 2, before)
    assert [(best.completion.text, best.reward) for best in kept] == [("old", 3.0), ("c", 4.5), ("oldest", -1.0)]


def test_samples_that_cannot_be_parted_into_ns_are_refused():
    for settings in ({"n": 5}, {"n": 0}, {"n": 256}):
        with pytest.raises(ValueError, match=rf"samples_per_step 128 is no multiple of n {settings['n']}"):
            RejectionSamplingConfig(**settings)
    with pytest.raises(ValueError, match="is no multiple of n 5"):
        RejectionSamplingPPOConfig(n=5)
    assert RejectionSamplingConfig(n=128).n == 128


def scripted(reference, steps):
    """The reference, but what it and its copies draw is written down: per step, per prompt, one text of digits per sample."""

    class Scripted(CausalLMPolicy):
        def sample(self, prompts, *, num_samples, max_new_tokens, seed, **_):
            drawn = steps.pop(0)
            assert all(len(drawn[p.id]) == num_samples for p in prompts)
            return [[Completion(p, tuple(ids), str(ids), True) for ids in drawn[p.id]] for p in prompts]

    return Scripted(reference.model, reference.tokenizer)


def test_only_what_is_kept_is_trained_on_and_a_prompt_keeps_its_best(tmp_path, reference, monkeypatch):
    """Two prompts, two samples each; a reward of the last token. In the second step the first prompt draws nothing better."""
    first, second = (p.id for p in WORLD.prompts)
    steps = [
        {first: [[1, 4], [2, 2]], second: [[3, 1], [3, 2]]},
        {first: [[1, 1], [1, 3]], second: [[5, 1], [4, 5]]},
    ]
    first_kept = [Completion(WORLD.prompts[0], (1, 4), "", True), Completion(WORLD.prompts[1], (3, 2), "", True)]
    loss = -float(reference.log_prob(first_kept).mean())
    passed = []
    watched = CausalLMPolicy.completion_log_probs

    def watch(self, completions):
        passed.append(sorted(c.ids for c in completions))
        return watched(self, completions)

    monkeypatch.setattr(CausalLMPolicy, "completion_log_probs", watch)

    def last_token(prompts, completions):
        return [float(text.strip("[]")[-1]) for text in completions]

    settings = {"n": 2, "num_steps": 2, "samples_per_step": 4, "epochs_per_step": 1, "minibatch_size": 64}
    _, rows = train(tmp_path, scripted(reference, steps), reward=last_token, optim={"num_snapshots": 1}, **settings)
    assert passed == [[(1, 4), (3, 2)], [(1, 4), (4, 5)]]
    assert [row["reward"] for row in rows] == [(4 + 2 + 1 + 2) / 4, (1 + 3 + 1 + 5) / 4]
    assert [row["best"] for row in rows] == [(4 + 2) / 2, (4 + 5) / 2]
    assert rows[0]["loss"] == pytest.approx(loss, rel=1e-5)
    prompt_tokens = sum(len(p.ids) for p in WORLD.prompts)
    assert [row["tokens"] for row in rows] == [prompt_tokens + 4, 2 * (prompt_tokens + 4)]
    assert [row["tokens_sampled"] for row in rows] == [8, 16]
    assert [row["tokens_scored"] for row in rows] == [2 * prompt_tokens + 8, 4 * prompt_tokens + 16]
    assert [row["tokens_per_completion"] for row in rows] == [2, 2]
    assert [row["no_eos"] for row in rows] == [1, 1]


def test_the_rate_warms_up_over_optimizer_steps_and_micro_batches_change_nothing(tmp_path, reference):
    """32 samples are 8 kept, in minibatches of 3: three a pass, six a step of two passes."""
    whole, rows = train(tmp_path / "a", reference, num_steps=2, optim={"warmup_steps": 9, "micro_batch_size": 64})
    assert [row["lr"] for row in rows] == pytest.approx([1e-3 * 6 / 9, 1e-3], rel=1e-4)
    parted, same = train(tmp_path / "b", reference, num_steps=2, optim={"warmup_steps": 9, "micro_batch_size": 1})
    assert torch.allclose(table(parted), table(whole), atol=1e-3)
    assert [row["loss"] for row in same] == pytest.approx([row["loss"] for row in rows], rel=1e-3)
    still, _ = train(tmp_path / "c", reference, num_steps=2, optim={"lr": 0.0})
    assert torch.equal(table(still), table(reference))


def test_exact_world_the_expected_reward_rises_and_so_does_that_of_both_parts(tmp_path, reference):
    start = expected_reward(table(reference), REWARDS).mean()
    spread = (table(reference).exp() * (REWARDS - start).square()).sum(-1).mean().sqrt()
    for method in (RejectionSampling, RejectionSamplingPPO):
        settings = {"num_steps": 16, "samples_per_step": 64, "minibatch_size": 16}
        policy, rows = train(tmp_path / method.__name__, reference, method, optim={"lr": 5e-4}, **settings)
        assert expected_reward(table(policy), REWARDS).mean() > start + 0.8 * spread
        assert rows[-1]["reward"] > rows[0]["reward"] + 0.5 * spread


class Killed(QuietRun):
    """Writes a checkpoint after every step, and dies of the one that it was told to."""

    dies_at = 0

    def checkpoint_due(self):
        return True

    def save_checkpoint(self, step, state):
        super().save_checkpoint(step, state)
        if step == self.dies_at:
            raise Stopped


@pytest.mark.parametrize("method", [RejectionSampling, RejectionSamplingPPO])
def test_a_run_that_is_stopped_after_any_step_ends_as_if_it_had_not_been(tmp_path, reference, method):
    """Four steps; of both parts two each. After the last step of a part there is no checkpoint: the one before serves."""
    settings = {"num_steps": 4, "optim": {"num_snapshots": 3}}
    whole, rows = train(tmp_path / "whole", reference, method, **settings)
    kept = sorted(path.name for path in (tmp_path / "whole").rglob("step-*"))
    assert len(kept) == 3
    for step in (1, 3) if method is RejectionSamplingPPO else (1, 2, 3):
        root, kind = tmp_path / str(step), type("KilledHere", (Killed,), {"dies_at": step})
        with pytest.raises(Stopped):
            train(root, reference, method, kind, **settings)
        resumed, again = train(root, reference, method, **settings)
        assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))
        drop = [[{k: v for k, v in row.items() if not k.startswith("seconds")} for row in log] for log in (again, rows)]
        assert drop[0] == drop[1]
        assert sorted(path.name for path in root.rglob("step-*")) == kept


def test_what_was_kept_outlives_a_stop(tmp_path, reference):
    """Rewards of the second half are all lower: a run that forgot its kept completions would train on others."""
    calls = []

    def falling(prompts, completions):
        calls.append(len(completions))
        return [r - 100 * len(calls) for r in TableReward.of(WORLD, REWARDS)(prompts, completions)]

    whole, rows = train(tmp_path / "whole", reference, reward=falling)
    assert len({row["best"] for row in rows}) == 1
    calls.clear()
    kind = type("KilledHere", (Killed,), {"dies_at": 2})
    with pytest.raises(Stopped):
        train(tmp_path / "cut", reference, kind=kind, reward=falling)
    resumed, again = train(tmp_path / "cut", reference, reward=falling)
    assert [row["best"] for row in again] == [row["best"] for row in rows]
    assert torch.equal(table(resumed), table(whole))


def test_guards_name_the_step(tmp_path, reference):
    def broken(prompts, completions):
        return [0.5] * (len(completions) - 1) + [math.nan]

    with pytest.raises(NonFiniteLoss, match="step 1: a reward is no finite number"):
        train(tmp_path / "a", reference, reward=broken)
    with pytest.raises(NonFiniteLoss, match=r"step 1: .*lower the learning rate \(1e\+30\)"):
        train(tmp_path / "b", reference, optim={"lr": 1e30, "warmup_steps": 0})
    for method in (RejectionSampling, RejectionSamplingPPO):
        with pytest.raises(ValueError, match=r"rejection sampling.* needs prompts, a reward"):
            method().train(TrainingData(prompts=WORLD.prompts), reference, method.Config(), run_in(tmp_path / "c"))


def rollouts(monkeypatch):
    """What PPO draws: per rollout the policy's log-probs then, the reference, the rollout, the scale of the reward, β."""
    drawn = []

    def watch(policy, head, reference, reward, prompts, *, scale, **settings):
        found = draw_rollout(policy, head, reference, reward, prompts, scale=scale, **settings)
        drawn.append((table(policy), reference, found, scale.state, settings["beta"]))
        return found

    monkeypatch.setattr(ppo, "draw_rollout", watch)
    return drawn


def test_ppo_starts_from_the_policy_of_rejection_sampling_and_is_held_to_the_reference(tmp_path, reference, monkeypatch):
    drawn = rollouts(monkeypatch)
    settings = {"num_steps": 6, "rejection_share": 0.67, "rejection_lr": 1e-3, "beta": 0.3, "optim": {"lr": 2e-4}}
    policy, rows = train(tmp_path / "both", reference, RejectionSamplingPPO, **settings)
    assert len(drawn) == 2
    alone, alone_rows = train(tmp_path / "alone", reference, num_steps=4)
    assert torch.equal(drawn[0][0], table(alone))
    assert exact_kl(table(alone), table(reference)).mean() > 0.1
    assert not torch.equal(drawn[1][0], table(alone))
    for _, given, rollout, _, beta in drawn:
        assert given is reference
        assert beta == 0.3
        (of_reference, mask) = reference.completion_token_log_probs(rollout.completions)
        assert torch.allclose(rollout.kl, sequence_kl(rollout.logps, of_reference, mask, estimator="k1"), atol=1e-5)
    assert rows[4]["kl"] > 0.05
    assert rows[4]["objective"] == pytest.approx(
        float(drawn[0][2].scores.sub(drawn[0][3][0]).div(drawn[0][3][1]).mean()) - 0.3 * rows[4]["kl"], abs=1e-4
    )
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["best"] for row in rows[:4]] == [row["best"] for row in alone_rows]
    assert ["kl" in row for row in rows] == [False] * 4 + [True] * 2
    assert [row["lr"] for row in rows[4:]] == pytest.approx([2e-4, 2e-4 * (1 - 0.75 / 2)], rel=1e-4)
    counted = [[row[name] for row in rows] for name in ("tokens", "tokens_sampled", "tokens_scored")]
    assert all(sorted(set(column)) == column for column in counted)
    assert (policy.tokens_trained, policy.tokens_sampled, policy.tokens_scored) == tuple(column[-1] for column in counted)


def test_the_scale_of_the_reward_is_the_references_own(tmp_path, reference, monkeypatch):
    """It is that of the first step, whose samples are the reference's, as in a run of PPO alone; also after a stop."""
    scores = []
    reward = TableReward.of(WORLD, REWARDS)

    def watched(prompts, completions):
        scores.append(torch.tensor(reward(prompts, completions), dtype=torch.float64))
        return scores[-1]

    drawn = rollouts(monkeypatch)
    settings = {"num_steps": 6, "rejection_lr": 2e-3}
    train(tmp_path / "whole", reference, RejectionSamplingPPO, reward=watched, **settings)
    expected = float(scores[0].mean()), float(scores[0].std(unbiased=False))
    assert [scale for _, _, _, scale, _ in drawn] == [pytest.approx(expected)] * 3
    assert abs(float(scores[3].mean()) - expected[0]) > 0.3 * expected[1]  # PPO's own first rollout would give another
    for step in (2, 5):
        drawn.clear()
        root, kind = tmp_path / str(step), type("KilledHere", (Killed,), {"dies_at": step})
        with pytest.raises(Stopped):
            train(root, reference, RejectionSamplingPPO, kind, reward=watched, **settings)
        train(root, reference, RejectionSamplingPPO, reward=watched, **settings)
        assert {scale for _, _, _, scale, _ in drawn} == {drawn[0][3]}
        assert drawn[0][3] == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "share", "first"), [(6, 0.5, 3), (6, 0.01, 1), (6, 0.99, 5), (2, 0.5, 1), (32, 0.25, 8)])
def test_both_parts_have_as_many_samples_together_as_ppo(steps, share, first):
    config = RejectionSamplingPPOConfig(num_steps=steps, rejection_share=share, samples_per_step=64)
    of_rejection, of_ppo = config.parts()
    assert (of_rejection.num_steps, of_ppo.num_steps) == (first, steps - first)
    assert of_rejection.samples_per_step == of_ppo.samples_per_step == 64


def test_all_three_draw_the_same_number_of_samples_and_keep_policies_of_the_same_steps(tmp_path, reference):
    found = {}
    for method in (PPO, RejectionSampling, RejectionSamplingPPO):
        counted = []

        def reward(prompts, completions, counted=counted):
            counted.append(len(completions))
            return TableReward.of(WORLD, REWARDS)(prompts, completions)

        run = run_in(tmp_path / method.__name__)
        settings = {"num_steps": 5, "samples_per_step": 16, "optim": OptimConfig(lr=1e-4, num_snapshots=3)}
        settings |= {} if method is PPO else {"n": 4}  # four kept of two prompts
        method().train(data_of(reward), reference, method.Config(**settings), run)
        found[method.__name__] = counted, sorted(path.name for path in (run.directory / "snapshots").iterdir())
    assert [*found.values()] == [([16] * 5, ["step-000001", "step-000002", "step-000005"])] * 3


def test_settings_of_both_parts_reach_them():
    optim = OptimConfig(lr=7e-5, micro_batch_size=5, precision="bfloat16", num_snapshots=9)
    config = RejectionSamplingPPOConfig(
        n=2, rejection_lr=3e-4, beta=0.7, samples_per_step=10, epochs_per_step=3, minibatch_size=4, value_lr=0.2, optim=optim
    )
    of_rejection, of_ppo = config.parts()
    assert (of_rejection.n, of_rejection.optim.lr, of_ppo.optim.lr, of_ppo.beta, of_ppo.value_lr) == (2, 3e-4, 7e-5, 0.7, 0.2)
    for part in (of_rejection, of_ppo):
        assert (part.epochs_per_step, part.minibatch_size, part.optim.micro_batch_size) == (3, 4, 5)
        assert part.optim.precision == "bfloat16"
    usual = PPOConfig()
    changed = {"beta", "num_steps", "samples_per_step", "epochs_per_step", "minibatch_size", "value_lr", "optim"}
    assert all(getattr(of_ppo, f.name) == getattr(usual, f.name) for f in fields(PPOConfig) if f.name not in changed)
    with pytest.raises(ValueError, match=r"rejection_share 1.0: expected a share between 0 and 1"):
        RejectionSamplingPPOConfig(rejection_share=1.0)
    with pytest.raises(ValueError, match="num_steps 1: expected 2 or more"):
        RejectionSamplingPPOConfig(num_steps=1)
