"""The script that makes the embedded models, whole, on a handful of made-up reviews."""

import importlib
import importlib.util
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards.ngram_reward import NgramReward
from suite.study.profiles import ASSETS
from suite.tasks.imdb_sentiment import prompts_from_model

SCRIPT = Path(__file__).parents[2] / "experiments" / "assets" / "train_assets.py"
LANGUAGE_MODEL = "--tokens 20000 --vocab-size 300 --width 32 --layers 1 --heads 2 --context 32 --no-compile"
CLASSIFIER = "--windows 4 --fewest 2 --penalty 1 --others 10"
RIVAL = "--steps 40 --batch-size 16 --lr 3e-3 --shortest 6 --longest 24"


def train_assets(*arguments):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tools():
    """The module beside the script."""
    spec = importlib.util.spec_from_file_location("asset_tools", SCRIPT.with_name("asset_tools.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    lm = folder / "lm"
    train_assets("language-model", "--reviews", reviews, "--out", lm, *LANGUAGE_MODEL.split())
    clf = folder / "clf"
    train_assets("classifier", "--reviews", reviews, "--language-model", lm, "--out", clf, *CLASSIFIER.split())
    for _ in range(2):  # the second time its lines are replaced
        rival = ("--language-model", lm, "--classifier", clf, "--out", folder / "rival", *RIVAL.split())
        train_assets("rival", "--reviews", reviews, *rival)
    return folder


@pytest.mark.slow
def test_the_language_model_is_a_policy_with_a_card(made):
    policy = CausalLMPolicy.load(made / "lm")
    assert policy.model.config.n_positions == 32
    card = (made / "lm" / "README.md").read_text()
    assert "test nats per token, whole reviews in blocks of 32" in card
    assert "--tokens 20000" in card
    assert not (made / "lm" / "progress.pt").exists()


@pytest.mark.slow
def test_its_prompts_lie_beside_it(made):
    for train in (9, 8):
        train_assets("prompts", "--language-model", made / "lm", "--train", train, "--validation", 2, "--test", 3)
    listed = json.loads((made / "lm" / "prompts.json").read_text())
    policy = CausalLMPolicy.load(made / "lm")
    for split, size in {"train": 8, "validation": 2, "test": 3}.items():
        assert listed[split] == [list(p.ids) for p in prompts_from_model(policy, split, size, seed=0)]
    card = (made / "lm" / "README.md").read_text()
    assert card.count("| prompts.json | 8 train, 2 validation, 3 test prefixes") == 1 == card.count("prompts.json")


@pytest.mark.slow
def test_the_classifier_is_a_reward_that_learned_something(made):
    reward = NgramReward.load(made / "clf")
    good, bad = reward(["film ", "film "], ["great lovely superb moving plot", "awful dull poor stupid plot"])
    assert good > 0.7 > 0.3 > bad
    card = (made / "clf" / "README.md").read_text()
    assert "test accuracy, 16 tokens" in card
    assert "expected calibration error" in card
    assert "| penalty | 1; nats per window of a tenth of the training reviews: 1: " in card
    assert card.count("| trunk of lm | fitted to the same labels") == 1 == card.count("| trunk, test accuracy, 32 tokens")
    assert card.count("| trunk, accuracy of this classifier less the trunk's, 16 tokens | ") == 1


def test_the_gold_reward_is_compared_with_its_rival_on_the_same_reviews(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    sentiment = importlib.import_module("sentiment")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ASSETS / "imdb-gpt2")
    texts = [f"this film is {word} " + "and so on " * 30 for word in ("good", "bad", "good", "bad")] * 5
    labels = [int("good" in text) for text in texts]
    found = sentiment.beside(
        tokenizer,
        lambda pieces: np.full(len(pieces), -1.0),
        lambda pieces: np.array([1.0 if "good" in piece else -1.0 for piece in pieces]),
        texts,
        labels,
    )
    assert found["test accuracy, 16 tokens"].startswith("0.500 ± 0.219 (95 %, n = 20 ")
    half = 1.96 * np.std([1.0, 0.0] * 10, ddof=1) / np.sqrt(20)
    assert found["accuracy of this classifier less the trunk's, 16 tokens"].startswith(
        f"+0.5000 ± {half:.4f} (95 %, paired, n = 20 "
    )


def test_half_of_the_rows_begin_where_a_document_does(tools):
    documents = [[1000 + i, *([i % 7 + 1] * (20 + i % 30)), 0] for i in range(400)]
    rows = tools.rows_of_one_epoch(documents, 16, random.Random(0))
    share = (rows[:, 0] >= 1000).mean()
    assert 0.4 < share < 0.6


@dataclass(frozen=True)
class Config:
    out: Path
    minutes_between_saves: float = 0.0


def test_an_interrupted_training_resumes_and_ends_with_the_same_weights(tools, tmp_path):
    """Batches, both optimizers' states, schedules and the random numbers (dropout) go on where they were."""

    def train(name, die_at=None):
        config = Config(tmp_path / name)
        config.out.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        parameters = list(model.parameters())
        optimizers = [torch.optim.AdamW(parameters[:2], lr=0.1), torch.optim.AdamW(parameters[2:], lr=0.05)]
        seen = []

        def loss_of(batch):
            seen.append(int(batch[0, 0]))
            if seen[-1] == die_at:
                raise KeyboardInterrupt
            return model(batch / 10).square().mean()

        batches = (torch.full((2, 3), float(i)) for i in range(100))
        tools.optimise(config, model, optimizers, loss_of, batches, steps=10, warm_up=3)
        return seen, torch.cat([p.detach().flatten() for p in model.parameters()])

    whole_seen, whole = train("whole")
    assert whole_seen == list(range(10))
    with pytest.raises(KeyboardInterrupt):
        train("broken", die_at=6)
    seen, resumed = train("broken")
    assert seen == [6, 7, 8, 9]
    assert torch.equal(resumed, whole)
