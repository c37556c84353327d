"""From a file of pairs to a verdict, at smoke scale: under a judge, and by a reward of one's own."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from doors import through_doors

from suite.study.profiles import EMBEDDED
from suite.tasks.made_up import ROWS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rows = [row for k, row in enumerate(ROWS["hh_dialogue"]()) if k % 3 == 0]
    pairs = [{"prompt": r["chosen"].rpartition("Assistant:")[0] + "Assistant:",
              "chosen": r["chosen"].rpartition("Assistant:")[2], "rejected": r["rejected"].rpartition("Assistant:")[2]}
             for r in rows]  # fmt: skip
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, pairs[:9])))
    (folder / "rewards.py").write_text(
        "def short(prompts, completions):\n    return [-len(c) / 100 for c in completions]\n"
        "def fails(prompts, completions):\n    return [c.rewards for c in completions]\n"
        "calls = []\n"
        "def later(prompts, completions):\n    calls.append(1)\n"
        "    if len(calls) > 2:\n        raise RuntimeError('by design')\n    return short(prompts, completions)\n"
    )
    (folder / "broken.py").write_text(
        "from suite.methods.dpo import DPO\n"
        "class Broken(DPO):\n"
        "    name = 'Broken'\n"
        "    def train(self, data, reference, config, run):\n        raise RuntimeError('by design')\n"
    )
    return folder


GIVEN = ["own-data", "--pairs", "pairs.jsonl", "--profile", "smoke", "--runs", "runs", "--out", "out"]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


def run(folder, *more):
    words = [sys.executable, "-m", "suite.cli.main", *GIVEN, *more]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)


def test_win_rates_under_a_reward_model_that_no_method_has_seen(folder):
    """One method fails: the others are measured without it, and the exit code says so."""
    done = run(folder, "--methods", "dpo,best_of_n,broken:Broken")
    assert done.returncode == 1, done.stderr[-3000:]
    assert "RuntimeError: by design" in done.stdout
    out = folder / "out"
    assert {"verdict.md", "summary.md", "samples.md", "records.csv", "curves.svg"} <= {p.name for p in out.iterdir()}
    table = pd.read_csv(out / "records.csv")
    assert table.loc[table["metric"] == "win_rate", "method"].tolist() == ["Preferred-FT", "DPO", "DPO", "Best-of-N"]
    page = (out / "verdict.md").read_text()
    assert "fitted to the half of the pairs that no method sees" in page
    assert "**DPO beta = 0.1**" in page
    assert "corrected for 2 comparisons" in page
    assert "The paper's numbers" not in (out / "summary.md").read_text()
    assert "## own_data-" in (out / "samples.md").read_text()
    assert "length bias" in (out / "verdict.md").read_text()
    assert "Learning rates were not searched on these data" in page
    spent = table[table["metric"] == "kl"].set_index(["method", "setting"])["value"]
    assert spent["Preferred-FT"].item() == pytest.approx(0.0, abs=1e-3)  # it is the reference
    assert spent["Best-of-N"].item() == pytest.approx(math.log(8) - 7 / 8, abs=1e-4)  # its bound
    assert "**Not at equal KL**: at temperature 1 these policies spend" in page
    assert "**Take " in page or "**No policy is shown to be better than the reference.** First is " in page
    assert "It less the others' best" in page
    assert "What would change it: " in page
    assert "another judge" in page


@pytest.mark.slow
def test_a_frontier_by_a_function_of_ones_own(folder):
    done = run(folder, "--methods", "dpo,best_of_n_gt", "--reward", "rewards:short", "--out", "frontier")
    assert done.returncode == 0, done.stderr[-3000:]
    out = folder / "frontier"
    records = pd.read_csv(out / "records.csv")
    assert set(records["method"]) == {"SFT (reference)", "DPO", "Best-of-N-GT"}
    assert set(records[records["metric"] == "reward"]["unit"]) == {"rewards:short"}
    assert (records[records["metric"] == "reward"]["value"] < 0).all()
    assert (records[(records["method"] == "DPO") & (records["metric"] == "kl")]["value"] > 0).all()
    page = (out / "verdict.md").read_text()
    assert "**These policies, not these methods**: DPO has" in page
    assert "**Take DPO beta = " in page or "First is DPO beta = " in page
    assert "SFT (reference)" in page
    assert "a KL budget below" in page
    assert "test prompts, which did not choose it" in page
    assert "your reward prefers the chosen answer in " in (out / "verdict.md").read_text()
    assert "rewards:short" in (out / "frontier.svg").read_text() or (out / "frontier.png").exists()


BAD = [
    (["--reward", "rewards:short", "--judge", "openai:gpt-4o"], "give one of them"),
    (["--reward", "rewards:gone"], "cannot be loaded"),
    (["--reward", "rewards:fails", "--dry-run"], "fails on test pairs (AttributeError"),
    (["--max-new-tokens", "0"], "--max-new-tokens 0: expected a whole number of 1 or more"),
    (["--device", "cuda:9"], "cannot be used here"),
    (["--pairs", "gone.jsonl"], "gone.jsonl"),
    (["--reward", "rewards:short", "--methods", "zero_shot"], "trains nothing"),
    (["--pairs", "few.jsonl"], "use more rows"),
    (["--judge", f"reward:{EMBEDDED}", "--dry-run"], "gives no rewards of texts"),
    (["--model", EMBEDDED, "--max-new-tokens", "200", "--dry-run"], "do not fit into its context of 256"),
]


@pytest.fixture(scope="module")
def brief(folder):
    """Command lines that make no run, all in one process: options → exit code, stdout, stderr."""
    every = [*(more for more, _ in BAD), ["--dry-run"]]
    lines = [["suite", *GIVEN, "--out", "bad", *more] for more in every]
    results = through_doors("run", lines, cwd=folder, env=ENVIRONMENT)
    assert not (folder / "bad").exists()
    return lambda more: results[every.index(more)]


@pytest.mark.parametrize(("more", "message"), BAD)
def test_bad_input_gets_one_line_before_anything_is_trained(brief, more, message):
    code, _, complaint = brief(more)
    assert code not in (0, None)
    assert message in complaint
    assert "Traceback" not in complaint


def test_the_plan_trains_nothing(brief):
    code, printed, complaint = brief(["--dry-run"])
    assert code == 0, complaint
    assert "judge's reward model" in printed


def test_if_everything_fails_it_says_so(folder):
    """The reward works on the test pairs and fails on whatever is measured."""
    done = run(folder, "--methods", "best_of_n", "--reward", "rewards:later", "--out", "nothing")
    assert done.returncode == 2
    assert "what everything needs has failed" in done.stderr
    assert "RuntimeError: by design" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (folder / "nothing" / "summary.md").exists()


@pytest.mark.slow
def test_summaries_as_a_frontier_by_options_alone(tmp_path):
    """TL;DR, whose study is one of win rates, measured by a reward against KL: the same task, another evaluator."""
    reward = ROOT / "suite" / "assets" / "imdb-sentiment"
    options = ["--task", "tldr_summarization", "--pairs", "invented", "--reward", str(reward), "--methods", "dpo,best_of_n"]
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    assert {"verdict.md", "summary.md", "records.csv", "frontier.svg", "frontier.png", "budgets.svg"} <= {
        path.name for path in out.iterdir()
    }
    records = pd.read_csv(out / "records.csv", keep_default_na=False)
    assert set(records["task"]) == {"tldr_summarization"}
    assert set(records["method"]) == {"SFT (reference)", "DPO", "Best-of-N"}
    rewards = records[(records["metric"] == "reward") & (records["split"] == "test")]
    assert rewards["value"].astype(float).between(0, 1).all()
    assert set(rewards["unit"]) == {"P(positive)"}
    assert (records[(records["method"] == "DPO") & (records["metric"] == "kl")]["value"].astype(float) > 0).all()
    assert "DPO beta = " in (out / "verdict.md").read_text()
