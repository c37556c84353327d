"""The script that makes the embedded models, whole, on a handful of made-up reviews."""

import random
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
import train_assets

from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards.text_rewards import ClassifierReward


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("reviews"), random.Random(0)
    words = {1: ["great", "lovely", "superb", "moving"], 0: ["awful", "dull", "poor", "stupid"]}
    for split in ("train", "test"):
        labels = [i % 2 for i in range(200)]
        texts = [" ".join(rng.choice([*words[label], "film", "plot", "actor"]) for _ in range(40)) + "." for label in labels]
        pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def made(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    language_model = train_assets.LanguageModel(
        reviews=str(reviews),
        out=folder / "lm",
        tokens=20_000,
        vocab_size=300,
        width=32,
        layers=1,
        heads=2,
        context=32,
        compile=False,
    )
    classifier = train_assets.Classifier(
        reviews=str(reviews),
        language_model=folder / "lm",
        out=folder / "clf",
        steps=60,
        batch_size=16,
        layers=1,
        heads=2,
        lr=3e-3,
    )
    for config, make in ((language_model, train_assets.train_language_model), (classifier, train_assets.train_classifier)):
        config.out.mkdir()
        make(config)
    return folder


def test_the_language_model_is_a_policy_with_a_card(made):
    policy = CausalLMPolicy.load(made / "lm")
    assert policy.model.config.n_positions == 32
    card = (made / "lm" / "README.md").read_text()
    assert "test nats per token, whole reviews in blocks of 32" in card
    assert "--tokens 20000" in card
    assert not (made / "lm" / "progress.pt").exists()


def test_the_classifier_is_a_reward_that_learned_something(made):
    reward = ClassifierReward.load(made / "clf")
    good, bad = reward(["film ", "film "], ["great lovely superb moving plot", "awful dull poor stupid plot"])
    assert good > 0.7 > 0.3 > bad
    card = (made / "clf" / "README.md").read_text()
    assert "test accuracy, 16 tokens" in card
    assert "expected calibration error" in card


def test_half_of_the_rows_begin_where_a_document_does():
    documents = [[1000 + i, *([i % 7 + 1] * (20 + i % 30)), 0] for i in range(400)]
    rows = train_assets.rows_of_one_epoch(documents, 16, random.Random(0))
    share = (rows[:, 0] >= 1000).mean()
    assert 0.4 < share < 0.6
