"""The evaluator of two rewards: what is sampled, and one number per sample and metric."""

import pandas as pd

from suite.evaluation.two_rewards_evaluator import BothRewards, TwoRewardsEvaluator
from suite.interfaces import Contender, Context


def test_every_snapshot_is_a_point_and_the_reference_one_at_0():
    evaluator = TwoRewardsEvaluator(samples=3)
    found = evaluator.points(Contender("DPO", snapshots=2))
    assert [(p.panel, p.x, p.snapshot, p.samples, p.temperature) for p in found] == [
        ("plane", 0.5, 0, 3, 1.0), ("plane", 1.0, 1, 3, 1.0)
    ]  # fmt: skip
    assert [(p.x, p.snapshot) for p in evaluator.points(Contender("SFT"))] == [(0.0, None)]


def test_both_rewards_see_prompt_and_answer():
    samples = pd.DataFrame({
        "point": [0, 0, 1], "split": "test", "prompt_id": ["a", "b", "a"], "sample": [0, 0, 1], "tokens": [3, 4, 5],
        "prompt_text": ["one", "two", "one"], "text": ["x", "yy", "zzz"],
    })  # fmt: skip
    rewards = BothRewards(
        helpfulness=lambda prompts, texts: [float(len(text)) for text in texts],
        safety=lambda prompts, texts: [float(prompt == "two") for prompt in prompts],
    )
    found = TwoRewardsEvaluator().measure(samples, Context(judge=rewards))
    wide = found.pivot_table(index=["point", "prompt_id", "sample"], columns="metric", values="value")
    assert wide["helpfulness"].tolist() == [1, 2, 3]
    assert wide["safety"].tolist() == [0, 1, 0]
    assert wide["tokens"].tolist() == [3, 4, 5]
    assert list(found.columns) == ["point", "split", "prompt_id", "sample", "metric", "value"]
