import numpy as np
import pytest
import torch
from classifiers import classifier

from suite.common.errors import UserError
from suite.rewards.text_rewards import ClassifierReward


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    classifier(folder)
    return ClassifierReward.load(folder)


PROMPTS = ["This film", "I", "The plot of the movie"]
GOOD = [" is wonderful, a joy from start to finish.", " loved every minute of it, superb.", " was brilliant and moving."]
BAD = [" is terrible, a waste of time.", " hated every minute of it, awful.", " was boring, stupid and the worst ever."]


def test_praise_scores_above_blame(reward):
    good, bad = reward(PROMPTS, GOOD), reward(PROMPTS, BAD)
    assert min(good) > 0.7
    assert max(bad) < 0.3


def test_reward_is_the_probability_of_the_log_odds(reward):
    odds = reward.log_odds(PROMPTS, GOOD)
    assert reward(PROMPTS, GOOD) == pytest.approx(1 / (1 + np.exp(-odds)))


def test_the_batch_does_not_matter(reward):
    texts = (PROMPTS * 60)[:150], (GOOD + BAD) * 25
    together = reward.log_odds(*texts)
    alone = [reward.log_odds([p], [c])[0] for p, c in list(zip(*texts, strict=True))[:6]]
    assert together[:6] == pytest.approx(alone, abs=1e-4)


def test_prompt_and_completion_are_both_read(reward):
    assert reward(["a wonderful film,"], [" it was"])[0] > reward(["an awful film,"], [" it was"])[0]


def test_long_text_is_cut_not_refused(reward):
    assert 0 < reward(["Good."], [" Fine film." * 2000])[0] < 1


def test_saved_and_loaded_again(reward, tmp_path):
    reward.save(tmp_path)
    assert ClassifierReward.load(tmp_path)(PROMPTS, GOOD) == pytest.approx(reward(PROMPTS, GOOD))


def test_classifiers_without_the_two_labels_are_refused(reward, tmp_path):
    reward.model.config.id2label, kept = {0: "CAT", 1: "DOG"}, reward.model.config.id2label
    try:
        with pytest.raises(UserError, match="NEGATIVE and POSITIVE"):
            ClassifierReward(reward.model, reward.tokenizer)
    finally:
        reward.model.config.id2label = kept
    with pytest.raises(UserError, match="it holds no model"):
        ClassifierReward.load(tmp_path)
    assert next(reward.model.parameters()).dtype == torch.float32


def test_missing_weights_are_refused_not_drawn_at_random(reward, tmp_path):
    from safetensors.torch import load_file, save_file

    reward.save(tmp_path)
    weights = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights are missing .*classifier"):
        ClassifierReward.load(tmp_path)
