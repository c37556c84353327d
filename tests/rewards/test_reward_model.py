import json

import numpy as np
import pytest
import torch
from conftest import completion, make_pairs

from suite.check.trial import QuietRun
from suite.common.errors import UserError
from suite.data.preference_data import PreferencePair, Prompt
from suite.engine.store import RunSpec
from suite.rewards.reward_model import RewardModel, RewardScale, ranked
from suite.training.reward_modeling import fit_reward_model, split_by_prompt
from suite.training.settings import OptimConfig, RewardModelConfig

PROMPTS = ["film ", "plot bad ", "good "]
TEXTS = ["good good", "bad", "fine film plot good"]


def random_head(model):
    torch.nn.init.normal_(model.model.score.weight, std=1.0)
    return model


def test_a_new_model_gives_zero_and_keeps_the_policys_trunk(policy):
    model = RewardModel.from_policy(policy)
    assert model(PROMPTS, TEXTS) == [0.0, 0.0, 0.0]
    ours, theirs = model.model.base_model.state_dict(), policy.model.base_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_neither_padding_nor_the_batch_changes_a_reward(policy):
    model = random_head(RewardModel.from_policy(policy))
    together = model(PROMPTS, TEXTS)
    alone = [model([p], [t])[0] for p, t in zip(PROMPTS, TEXTS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len(set(np.round(together, 3))) == 3


def test_save_and_load(policy, tmp_path):
    model = random_head(RewardModel.from_policy(policy))
    model.scale = RewardScale(0.5, 2.0)
    model.save(tmp_path / "reward")
    loaded = RewardModel.load(tmp_path / "reward")
    assert loaded.scale == model.scale
    assert loaded(PROMPTS, TEXTS) == pytest.approx(model(PROMPTS, TEXTS), abs=1e-6)
    raw = [model.raw([p], [t]).item() for p, t in zip(PROMPTS, TEXTS, strict=True)]
    assert model(PROMPTS, TEXTS) == pytest.approx([(r - 0.5) / 2 for r in raw], abs=1e-5)
    with pytest.raises(UserError, match="it holds no model"):
        RewardModel.load(tmp_path)


def test_ranking_by_hand():
    """Four pairs with raw differences 2, -1, 0 and 3 (in units of the scale's std 1): two right, one tied, one wrong."""
    values = {"a": 2.0, "b": 0.0, "c": -1.0, "d": 3.0}

    class Fixed:
        scale = RewardScale()

        def logits(self, prompts, completions):
            return np.array([values[c] for c in completions])

    def pair(chosen, rejected, gap):
        p = Prompt("p", (1,), "")
        sides = [completion(p, 1)] * 2
        from dataclasses import replace

        sides = [replace(c, text=t) for c, t in zip(sides, (chosen, rejected), strict=True)]
        return PreferencePair(*sides, gap, 0.0, -1.0, -1.0)

    found = ranked(Fixed(), [pair("a", "b", 0.1), pair("c", "b", 0.2), pair("b", "b", 0.3), pair("d", "b", 0.9)])
    assert found["right"].tolist() == [1, 0, 0.5, 1]
    assert found["difference"].tolist() == [2, -1, 0, 3]
    assert found["gold_gap"].tolist() == [0.1, 0.2, 0.3, 0.9]
    assert set(found["prompt_id"]) == {"p"}


def test_it_learns_what_the_pairs_say(gpt2, tmp_path):
    """Pairs prefer more `good`; the snapshot of best held-out accuracy is kept, centred and scaled on the samples."""
    prompts = [Prompt(f"p{i}", (3, 1 + i % 5), "film ") for i in range(12)]
    pairs = [p for p in make_pairs(gpt2, prompts, 12) if p.chosen_reward > p.rejected_reward]
    run = QuietRun(tmp_path, RunSpec("reward_model", {"seed": 0}))
    run.directory.mkdir(parents=True)
    config = RewardModelConfig(
        validation_share=0.25, optim=OptimConfig(lr=1e-3, batch_size=16, num_epochs=10, warmup_steps=2, num_snapshots=4)
    )
    model, held_out, found = fit_reward_model(pairs, gpt2, config, run)
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert found["accuracy"] == held_out["right"].mean() > 0.8
    assert found["accuracy"] == max(found["accuracy_by_step"].values())
    assert len(found["accuracy_by_step"]) == 4
    samples = sorted({(c.prompt.text, c.text) for p in pairs for c in (p.chosen, p.rejected)})
    scores = np.array(model(*zip(*samples, strict=True)))
    assert scores.mean() == pytest.approx(0, abs=1e-3)
    assert scores.std() == pytest.approx(1, abs=1e-3)


def test_pairs_are_held_out_by_prompt(gpt2, prompts):
    pairs = make_pairs(gpt2, prompts, 4)
    training, held_out = split_by_prompt(pairs, 0.34, 0)
    assert len(training) + len(held_out) == len(pairs)
    assert {p.chosen.prompt.id for p in training}.isdisjoint({p.chosen.prompt.id for p in held_out})
    assert held_out
    for share, some in ((0.0, pairs), (1.0, pairs), (0.5, pairs[:1])):
        with pytest.raises(ValueError, match="validation_share"):
            split_by_prompt(some, share, 0)
