"""A task that the suite does not know, in one file, and a script of a few lines that puts methods on its frontier."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TASK = """
from pathlib import Path

from suite.data.preference_data import Prompt
from suite.interfaces import Example

GOOD = {"good", "great", "best", "better", "fine", "well", "love", "like", "the", "and", "very", "film", "movie"}


def good_words(prompts, completions):
    return [sum(word.strip(".,!?") in GOOD for word in text.lower().split()) for text in completions]


class Openings:
    name = "openings"
    gives_pairs = False
    gold_reward = "my_task:good_words"
    template = "sentiment"
    reference_answer = ""

    def examples(self, split, size, reading):
        lines = Path(reading.source).read_text().splitlines()
        own = {"train": lines[:24], "validation": lines[24:32], "test": lines[32:]}[split][:size]
        ids = [tuple(reading.tokenizer(line, add_special_tokens=False)["input_ids"]) for line in own]
        prompts = [Prompt(f"{split}-{k}", some, line) for k, (some, line) in enumerate(zip(ids, own))]
        return [Example(prompt, shown=prompt.text) for prompt in prompts], {"rows": len(lines), "used": len(prompts)}

    def texts(self, size, max_tokens, reading):
        raise NotImplementedError


TASK = Openings()
"""
SCRIPT = """
from pathlib import Path
from suite import Contender, OptimConfig, Options, RewardKLEvaluator, Study, plan_study, run_study, write_frontier
from suite.study.profiles import EMBEDDED
optim = OptimConfig(batch_size=8, micro_batch_size=8, warmup_steps=1, num_snapshots=1)
sizes = dict(train_size=16, validation_prompts=8, test_prompts=8, max_new_tokens=12, pool_size=8, ideal_prompts=0)
what = dict(source="openings.txt", reward_name="good words", reward_maximum=float("inf"))
study = Study("tiny", "my_task:TASK", EMBEDDED, optim, optim, **what, **sizes)
methods, page = {"dpo": [{"beta": 0.1}], "best_of_n": [{"n": 4}]}, lambda *of: write_frontier(*of, title="Good words", data=[])
plan = plan_study(study, methods, RewardKLEvaluator(), reference=Contender("SFT (reference)"))
run_study(plan, page, out=Path("out"), options=Options(Path("runs"), workers=1))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openings")
    whose = ("The", "This", "A new", "My first", "His last")
    what = ("film is", "story was", "plot of", "actor in", "scene", "idea", "day", "war")
    openings = [f"{one} {other}" for one in whose for other in what]
    (folder / "openings.txt").write_text("\n".join(openings))
    (folder / "my_task.py").write_text(TASK)
    (folder / "frontier.py").write_text(SCRIPT.lstrip())
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "frontier.py"], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_its_frontier_is_written(folder):
    assert len(SCRIPT.strip().splitlines()) <= 10
    assert (folder / "out" / "summary.md").read_text().startswith("# Good words")
    assert (folder / "out" / "frontier.svg").exists()
    records = pd.read_csv(folder / "out" / "records.csv", keep_default_na=False)
    assert set(records["task"]) == {"openings"}
    assert set(records["method"]) == {"SFT (reference)", "DPO", "Best-of-N"}
    rewards = records[records["metric"] == "reward"]
    assert set(rewards["method"]) == {"SFT (reference)", "DPO", "Best-of-N"}
    assert (rewards["value"] >= 0).all()
    assert rewards["value"].max() > 0
    assert set(rewards["unit"]) == {"good words"}
    assert (records[(records["method"] == "DPO") & (records["metric"] == "kl")]["value"] > 0).all()


def test_the_suite_has_not_heard_of_it(folder):
    for path in (ROOT / "suite").rglob("*.py"):
        assert not any(name in path.read_text() for name in ("my_task", "openings", "good_words")), path
