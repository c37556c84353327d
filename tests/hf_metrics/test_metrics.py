"""The Hugging Face `evaluate` classes, loaded by path without a network, against the library."""

from pathlib import Path

import evaluate
import numpy as np
import pytest

import suite
from suite.study.profiles import ASSETS

METRICS = Path(suite.__file__).parent / "hf_metrics"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


def load(name):
    return evaluate.load(str(METRICS / name / f"{name}.py"))


def test_sequence_kl():
    policy, reference = [[-1.0, -2.0], [-0.5], [-1.0, -1.0], [-3.0]], [[-1.5, -2.5], [-0.2], [-2.0, -1.0], [-3.0]]
    k1 = [1.0, -0.3, 1.0, 0.0]
    found = load("sequence_kl").compute(predictions=policy, references=reference)
    assert found["sequence_kl"] == pytest.approx(np.mean(k1))
    assert found["low"] < found["sequence_kl"] < found["high"]
    assert found["n"] == 4
    paired = load("sequence_kl").compute(predictions=policy, references=reference, prompt_ids=["a", "a", "b", "c"])
    assert paired["n"] == 3
    k3 = load("sequence_kl").compute(predictions=policy, references=reference, estimator="k3")["sequence_kl"]
    by_hand = sum(np.exp(-d) - 1 + d for d in (0.5, 0.5, -0.3, 1.0, 0.0, 0.0)) / 4
    assert k3 == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="row 0: 1 log-probs"):
        load("sequence_kl").compute(predictions=[[-1.0]], references=[[-1.0, -2.0]])


def test_preference_accuracy():
    found = load("preference_accuracy").compute(predictions=[2.0, 1.0, 0.0, 3.0], references=[1.0, 1.0, 1.0, 1.0])
    assert found["accuracy"] == pytest.approx(2.5 / 4)


def test_win_rate_guesses_no_verdict():
    found = load("win_rate").compute(predictions=["win", "win", "tie", "loss", "???"], prompt_ids=["a", "a", "b", "c", "d"])
    assert found["win_rate"] == pytest.approx(2.5 / 4)
    counts = {"n": 3, "n_asked": 5, "n_valid": 4, "n_tie": 1, "n_invalid": 1}
    assert {name: found[name] for name in counts} == counts
    with pytest.raises(ValueError, match="none of 1"):
        load("win_rate").compute(predictions=["?"])


def test_reward_is_the_gold_reward():
    from suite.rewards.open_reward import open_reward

    texts, prompts = ["was wonderful and moving", "was a waste of time", "fine"], ["the film ", "the film ", "it is "]
    found = load("reward").compute(data=texts, prompts=prompts, classifier=str(ASSETS / "imdb-sentiment"))
    expected = open_reward(str(ASSETS / "imdb-sentiment"))(prompts, texts)
    assert found["reward"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["n"] == 2  # prompts
