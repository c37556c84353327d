"""SIGKILL in the middle of training, after a checkpoint: the next start goes on from it and ends with the same weights."""

import json
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file

from suite.engine import store
from suite.engine.sweep import run_sweep
from suite.study.profiles import ASSETS
from suite.study.specs import Specs
from suite.study.stages.inputs import snapshots
from suite.study.study import Study
from suite.training.settings import OptimConfig

PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
from test_kill import long_run
from suite.engine import store
from suite.engine.sweep import run_sweep
store.SECONDS_BETWEEN_CHECKPOINTS = 0.0
list(run_sweep(Path({root!r}), [long_run()], workers=1))
"""


def long_run():
    """DPO for twelve epochs on pairs of a few prompts."""
    study = Study(
        profile="test", task="imdb_sentiment", model=str(ASSETS / "imdb-gpt2"), gold_reward=str(ASSETS / "imdb-sentiment"),
        train_size=8, validation_prompts=4, test_prompts=6, max_new_tokens=8, learning_rates={"dpo": 1e-5},
        optim=OptimConfig(batch_size=16, warmup_steps=1, num_snapshots=2, num_epochs=12),
        reward_model=OptimConfig(batch_size=16, num_snapshots=2),
    )  # fmt: skip
    return Specs(study).policy("dpo", {}, 0)[1]


def test_killed_after_a_checkpoint_training_goes_on_from_it(tmp_path, monkeypatch):
    train = long_run()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert {o.status for o in run_sweep(whole, [train], workers=1)} == {"done"}
    program = PROGRAM.format(path=[p for p in sys.path if "tests" in p], root=str(broken))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = train.directory(broken) / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    assert not (train.directory(broken) / "DONE").exists()
    assert store.status(broken, train) == "resumes"
    done_steps = torch.load(checkpoint, weights_only=True)["step"]
    seen = []
    original = store.Run.log
    monkeypatch.setattr(store.Run, "log", lambda self, step, metrics: (seen.append(step), original(self, step, metrics)))
    assert "done" in {o.status for o in run_sweep(broken, [train], workers=1)}
    assert seen[0] == done_steps + 1
    rows = [
        [json.loads(line) for line in (train.directory(root) / "metrics.jsonl").read_text().splitlines()]
        for root in (whole, broken)
    ]
    assert rows[0] == rows[1]
    for a, b in zip(*(snapshots(train.directory(root)) for root in (whole, broken)), strict=True):
        one, other = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
        assert all(torch.equal(one[name], other[name]) for name in one)
