"""The schedule of learning rates and the margins by rating, against hand-made values."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from suite.common.errors import UserError
from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.training.reward_modeling import check_ratings, pair_losses
from suite.training.settings import MARGINS, OptimConfig, rate_share, warmup_of

COSINE = OptimConfig(warmup_steps=10_000, warmup_share=0.03, least_warmup_steps=5, schedule="cosine", final_share=0.1)
"""Warm-up of 3 % of the steps and at least 5, then a cosine to a tenth."""


def test_warm_up_is_a_share_of_the_steps_but_never_fewer_than_the_least():
    assert warmup_of(1000, COSINE) == 30
    assert warmup_of(100, COSINE) == 5
    assert warmup_of(1000, OptimConfig(warmup_steps=10, least_warmup_steps=5)) == 10


def test_a_cosine_starts_at_the_peak_is_halfway_in_the_middle_and_ends_at_the_floor():
    shares = [rate_share(step, 105, COSINE) for step in range(105)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[54] == pytest.approx(0.55)  # 50 of 100 steps after warm-up
    assert shares[29] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)  # a quarter
    assert shares[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(shares[4:]))


def test_a_constant_rate_stays_at_the_peak():
    assert [rate_share(step, 100, OptimConfig(warmup_steps=4)) for step in (0, 3, 50, 99)] == [0.25, 1.0, 1.0, 1.0]


def test_the_loop_trains_at_the_rates_of_the_schedule(gpt2, tmp_path):
    from suite.engine.store import Run, RunSpec
    from suite.interfaces import TrainingData
    from suite.methods.supervised import SFT, SFTConfig

    texts = [Completion(Prompt(f"p{k}", (1, 2), "good bad"), (3, 0), "film", truncated=False) for k in range(8)]
    optim = OptimConfig(lr=1e-3, batch_size=2, warmup_steps=1, schedule="cosine", final_share=0.5, num_snapshots=1)
    seen = []
    run = Run(tmp_path, RunSpec("sft", {"seed": 0}, {}, "", {}))
    run.log = lambda step, metrics: seen.append(metrics["lr"])
    SFT().train(TrainingData(texts=texts), gpt2, SFTConfig(optim), run)
    assert seen == pytest.approx([1e-3, 1e-3 * (0.5 + 0.5 * 0.75), 1e-3 * (0.5 + 0.5 * 0.25), 5e-4])


def _pair(rating):
    prompt = Prompt("p", (1,), "good")
    chosen, rejected = (Completion(prompt, (token, 0), text, truncated=False) for token, text in ((3, "film"), (2, "bad")))
    return PreferencePair(chosen, rejected, 1.0, 0.0, math.nan, math.nan, rating=rating)


@pytest.mark.parametrize(
    ("margins", "expected"), [("none", (0, 0, 0, 0)), ("small", (0, 1 / 3, 2 / 3, 1)), ("large", (0, 1, 2, 3))]
)
def test_the_margin_of_a_rating_is_the_papers(margins, expected):
    """L = -log σ(r_c - r_r - m): with r_c - r_r = 2 written down by hand, unrated pairs and gold gaps beside it."""
    raw = SimpleNamespace(raw=lambda prompts, texts: torch.tensor([1.5 if text == "film" else -0.5 for text in texts]))
    losses, metrics = pair_losses(raw, [_pair(rating) for rating in (0, 1, 2, 3)], ratings=MARGINS[margins])
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-(2 - m))) for m in expected])
    assert metrics["accuracies"].tolist() == [1.0] * 4
    losses, _ = pair_losses(raw, [_pair(3), _pair(None)], margin=0.5, ratings=MARGINS[margins])  # gold gap 1
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-(2 - 0.5 - m))) for m in (expected[3], 0)])


def test_margins_need_a_rating_in_every_pair():
    check_ratings([_pair(None)], "none")
    check_ratings([_pair(0), _pair(3)], "large")
    with pytest.raises(UserError, match="--rating-margins small: 1 of 2 pairs have no rating; add a column rating"):
        check_ratings([_pair(0), _pair(None)], "small")
