"""SIGKILL in the middle of training, after a checkpoint: the next start goes on from it and ends with the same weights."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file
from test_study import STUDY

from suite.runs import run_store
from suite.runs.plan import plan_study
from suite.runs.stages import snapshots
from suite.runs.sweep import run_sweep

PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
from test_kill import long_plan
from suite.runs import run_store
from suite.runs.sweep import run_sweep
run_store.SECONDS_BETWEEN_CHECKPOINTS = 0.0
list(run_sweep(Path({root!r}), [long_plan().trained[0].train], workers=1))
"""


def long_plan():
    return plan_study(replace(STUDY, optim=replace(STUDY.optim, num_epochs=12)), {"dpo": [{}]}, [0])


def test_killed_after_a_checkpoint_training_goes_on_from_it(tmp_path, monkeypatch):
    train = long_plan().trained[0].train
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
    assert run_store.status(broken, train) == "resumes"
    done_steps = torch.load(checkpoint, weights_only=True)["step"]
    seen = []
    original = run_store.Run.log
    monkeypatch.setattr(run_store.Run, "log", lambda self, step, metrics: (seen.append(step), original(self, step, metrics)))
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
