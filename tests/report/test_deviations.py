"""What a study does otherwise than the paper: the rows of `paper.toml`, filled in."""

from pathlib import Path

import pytest

from suite.common.registry import load
from suite.report.deviations import deviations, text_deviations
from suite.study.profiles import GRIDS, sentiment_study, text_study


@pytest.mark.parametrize("grid", GRIDS)
def test_every_row_of_the_sentiment_protocol_is_filled_in(grid):
    items = {item: (paper, ours) for item, paper, ours in deviations(sentiment_study("paper"), GRIDS[grid], [0, 1])}
    assert not any("{" in text for row in items.values() for text in row)
    assert items["base model"] == ("gpt2-large", "gpt2-large")
    assert items["training seeds"] == ("not specified", "0, 1")
    same = "0.05, 0.1, 1, 5"
    assert items["DPO β"] == (
        same,
        {"paper": "0.05, 0.1, 1.0, 5.0", "core": "0.05, 0.1, 0.3, 1.0", "noise": "0.1"}.get(grid, "0.1, 1.0"),
    )
    assert "rejection_sampling " not in items["PPO passes over a rollout"][1]  # it has no rollouts of PPO's kind
    horizon = items["PPO controller's horizon"][1]
    assert horizon.count("of the run's samples") == sum(name.startswith("ppo") for name in GRIDS[grid]) or horizon == "not run"


def test_tasks_of_the_paper_have_a_protocol_and_others_none(tmp_path: Path):
    for name, beta in (("hh_dialogue", "0.1"), ("tldr_summarization", "0.5"), ("own_data", None)):
        study = text_study(name, "smoke", runs=tmp_path)
        items = {
            item: row for item, *row in text_deviations(study, load(name, "task"), "J", [0.0, 0.25], {"DPO": "beta = 0.2"})
        }
        assert not any("{" in text for row in items.values() for text in row)
        assert items.get("DPO β") == (beta and [beta, "0.2"])
        assert not items or items["judge"][1] == "J, both orders"
