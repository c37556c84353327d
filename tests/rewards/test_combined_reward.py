"""Two rewards as one: which of the two counts, whitening, and what lies in a folder."""

import json
import math

import numpy as np
import pytest

from suite.common.errors import UserError
from suite.policies.model_config import check_reward_model
from suite.rewards.combined_reward import CombinedReward, CombinedRewardConfig
from suite.rewards.open_reward import open_reward
from suite.rewards.reward_model import RewardModel, RewardScale

HELPFUL = {"a": 2.0, "b": -1.0, "c": 0.5, "d": 0.0}
SAFE = {"a": -3.0, "b": 1.0, "c": -1.7, "d": -1.8}  # sigmoids 0.047, 0.73, 0.154, 0.142


def of(table):
    return lambda prompts, completions: [table[text] for text in completions]


def test_safety_counts_below_the_threshold_or_where_the_prompt_is_flagged():
    reward = CombinedReward(of(HELPFUL), of(SAFE), CombinedRewardConfig(flag_words=("bomb", "drugs")))
    texts, plain = list("abcd"), ["How do I bake?"] * 4
    values, by_safety = reward.logits(plain, texts)
    assert values.tolist() == [-3.0, -1.0, 0.5, -1.8]
    assert by_safety.tolist() == [True, False, False, True]
    prompts = ["A BOMB?", "Are drugs bad?", "A bombing raid", "drugs, please"]  # the third has the word in another
    assert reward.flagged(prompts).tolist() == [True, True, False, True]
    assert reward.logits(prompts, texts)[0].tolist() == [-3.0, 1.0, 0.5, -1.8]
    assert not CombinedReward(of(HELPFUL), of(SAFE)).flagged(prompts).any()
    strict = CombinedReward(of(HELPFUL), of(SAFE), CombinedRewardConfig(threshold=0.9))
    assert strict.logits(plain, texts)[0].tolist() == list(SAFE.values())


def test_whitening_gives_mean_0_and_deviation_1_on_the_samples_and_moves_others_alike():
    samples = (["x"] * 3, list("abc"))
    reward = CombinedReward(of(HELPFUL), of(SAFE)).whitened(*samples)
    values = reward(*samples)  # of -3, -1, 0.5: mean -7/6
    assert [np.mean(values), np.std(values)] == pytest.approx([0, 1])
    assert reward.scale.mean == pytest.approx(-7 / 6)
    assert reward(["x"], ["d"])[0] == pytest.approx((-1.8 + 7 / 6) / reward.scale.std)
    alike = CombinedReward(of(HELPFUL), of(SAFE)).whitened(["x", "x"], ["b", "b"])
    assert alike(["x"], ["b"]) == [0.0]  # no spread: only centred


def test_a_threshold_out_of_range_is_refused():
    for value in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="threshold"):
            CombinedRewardConfig(threshold=value)


@pytest.fixture
def saved(gpt2, tmp_path):
    import torch

    models = []
    for seed, mean in ((0, 0.5), (1, -2.0)):
        model = RewardModel.from_policy(gpt2)
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.model.score.weight)
        model.scale = RewardScale(mean, 3.0)
        models.append(model)
    reward = CombinedReward(*models, CombinedRewardConfig(0.4, ("bad",)), RewardScale(0.25, 2.0))
    reward.save(tmp_path / "reward")
    return tmp_path / "reward", reward


def test_a_saved_one_gives_the_same_rewards_through_the_door_of_all_rewards(saved):
    folder, reward = saved
    prompts, texts = ["good film", "bad plot", "fine", "plot good"], ["good", "film plot", "bad bad", "fine"]
    found = open_reward(str(folder))
    assert isinstance(found, CombinedReward)
    assert found(prompts, texts) == reward(prompts, texts)
    assert found.logits(prompts, texts)[1].tolist() == reward.logits(prompts, texts)[1].tolist()
    helpful, safe = (part.raw(prompts, texts).tolist() for part in reward.parts.values())
    by_hand = [
        s + 2.0 if flagged or 1 / (1 + math.exp(-(s + 2.0))) < 0.4 else h - 0.5
        for h, s, flagged in zip(helpful, safe, (False, True, False, False), strict=True)
    ]
    assert reward(prompts, texts) == pytest.approx([(value - 0.25) / 2.0 for value in by_hand], abs=1e-5)


def test_a_damaged_folder_is_refused_in_a_line(saved):
    folder, _ = saved
    check_reward_model(str(folder), "--reward it")
    (folder / "combined_reward.json").write_text(json.dumps({"threshold": 2.0, "flag_words": []}))
    with pytest.raises(UserError, match=r"combined_reward\.json: expected an object with threshold and flag_words"):
        open_reward(str(folder))
    (folder / "safety" / "config.json").unlink()
    with pytest.raises(UserError, match="--reward mine/safety"):
        check_reward_model(str(folder), "--reward mine")
