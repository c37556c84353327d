"""A run on two processes over gloo is the run of one: gradients, weights, snapshots, and what it goes on from."""

import contextlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from rank_stages import leave_models
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from suite.common.errors import UserError
from suite.common.machine import check_gpus
from suite.common.registry import describe
from suite.engine import checkpoint, rank_runs, store
from suite.engine.making import run_one
from suite.engine.store import RunSpec
from suite.engine.workload import Workload


def of(trains, **config):
    return RunSpec(
        "policy", {"trains": trains, "seed": 1, **config}, title=trains, work=Workload(trained=1), function="rank_stages:train"
    )


def weights_of(root, spec):
    """Of all snapshots, in order."""
    kind = AutoModelForSequenceClassification if spec.config["trains"] == "reward_model" else AutoModelForCausalLM
    folders = sorted((spec.directory(root) / "snapshots").glob("step-*"))
    if spec.config.get("lora_rank"):
        return [(f.name, name, value) for f in folders for name, value in load_file(f / "adapter_model.safetensors").items()]
    return [
        (folder.name, name, value) for folder in folders for name, value in kind.from_pretrained(folder).state_dict().items()
    ]


def rows_of(root, spec):
    rows = map(json.loads, (spec.directory(root) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if not name.startswith("seconds_")} for row in rows]


def check_equal(root, other, spec):
    ours, theirs = rows_of(root, spec), rows_of(other, spec)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, len(ours) + 1))
    assert len(ours) >= 10
    for row, twin in zip(ours, theirs, strict=True):
        assert row.keys() == twin.keys()
        assert row["grad_norm"] == pytest.approx(twin["grad_norm"], rel=1e-5)
        ties = {"accuracies"} if "accuracies" in row else set()  # of two copies of one text, by rounding
        assert {k: row[k] for k in row.keys() - ties} == pytest.approx(
            {k: twin[k] for k in row.keys() - ties}, rel=1e-4, abs=1e-5
        )
    mine, other_ones = weights_of(root, spec), weights_of(other, spec)
    assert [kept[:2] for kept in mine] == [kept[:2] for kept in other_ones]
    for (_, name, value), (_, _, twin) in zip(mine, other_ones, strict=True):
        seen = torch.ones_like(value, dtype=torch.bool)
        if name.endswith("c_attn.bias"):  # softmax does not see a key's: RMSprop divides a gradient of rounding by itself
            seen[len(seen) // 3 : 2 * len(seen) // 3] = False
        assert torch.allclose(value[seen], twin[seen], atol=1e-5), name


@pytest.mark.parametrize(
    ("trains", "more"),
    [("dpo", {}), ("ppo", {}), ("reward_model", {}), pytest.param("dpo", {"lora_rank": 2}, marks=pytest.mark.slow)],
)
def test_two_processes_are_one(tmp_path, trains, more):
    spec = of(trains, **more)
    leave_models(tmp_path)
    for gpus in (1, 2):
        outcome = run_one(tmp_path / str(gpus), spec, gpus=gpus)
        assert outcome.status == "done", outcome.error
    check_equal(tmp_path / "1", tmp_path / "2", spec)
    if trains == "dpo":
        ours, theirs = (json.loads((spec.directory(tmp_path / gpus) / "one.json").read_text()) for gpus in "12")
        assert ours == pytest.approx(theirs, rel=1e-5)
        ours, theirs = (json.loads((spec.directory(tmp_path / gpus) / "drawn.json").read_text()) for gpus in "12")
        assert ours == theirs
        assert [row[0] for row in ours] == [f"prompt {k}" for k in range(5) for _ in range(2)]
    facts = [store.facts(tmp_path / gpus, spec) for gpus in "12"]
    assert facts[0]["title"] == facts[1]["title"]
    assert {path.name for path in spec.directory(tmp_path / "2").iterdir()} == {
        path.name for path in spec.directory(tmp_path / "1").iterdir()
    }


@pytest.mark.slow
def test_processes_that_torchrun_starts_make_runs_together(tmp_path):
    """The same records as by `--gpus 2`, to rounding; and what torchrun started ends."""
    script = Path(__file__).parents[2] / "experiments" / "run_imdb_frontier.py"

    def grid(folder, *how):
        where = ["--runs", str(tmp_path / folder / "runs"), "--out", str(tmp_path / folder / "out")]
        return [*how, str(script), "--profile", "smoke", "--methods", "dpo,ppo", *where]

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words in (grid("torchrun", *torchrun), [*grid("gpus", sys.executable), "--gpus", "2"]):
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (pd.read_parquet(tmp_path / name / "out" / "training.parquet") for name in ("torchrun", "gpus"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    once = tmp_path / "torchrun" / "runs" / "policy"
    assert all(len(list(run.glob("snapshots/step-*"))) == 2 for run in once.iterdir())


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(store, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    leave_models(tmp_path)
    whole, spec = of("ppo"), of("ppo", dies_at=7)
    assert run_one(tmp_path / "whole", whole).status == "done"
    stopped = run_one(tmp_path / "cut", spec, gpus=before)
    assert stopped.status == "failed"
    assert "by design" in stopped.error
    assert [row["step"] for row in rows_of(tmp_path / "cut", spec)][-1] == 7
    assert run_one(tmp_path / "cut", spec, gpus=after).status == "done"
    whole.directory(tmp_path / "whole").rename(tmp_path / "again")
    (tmp_path / "whole" / "policy").mkdir(exist_ok=True)
    (tmp_path / "again").rename(spec.directory(tmp_path / "whole"))
    check_equal(tmp_path / "whole", tmp_path / "cut", spec)


def fails(how):
    return RunSpec("policy", {"how": how}, title=how, work=Workload(trained=1), function="rank_stages:fail_on_one")


def test_what_goes_wrong_on_a_follower_is_said(tmp_path):
    outcome = run_one(tmp_path, fails("alone"), gpus=2)
    assert outcome.status == "failed"
    assert "rank-1" in outcome.error
    assert "ValueError: seven" in (fails("alone").directory(tmp_path) / "error.log").read_text()


@pytest.mark.slow
def test_what_goes_wrong_is_told_as_what_it_is(tmp_path):
    """On all ranks as on one; bad input as one line; and a follower that is killed is a lost run, which is made again."""
    everywhere = run_one(tmp_path, fails("everywhere"), gpus=2)
    assert everywhere.status == "failed"
    assert everywhere.error.startswith("NonFiniteLoss: step 3 (log")
    with pytest.raises(UserError, match=r"^row 7: no prompt$"):
        run_one(tmp_path, fails("input"), gpus=2)
    killed = run_one(tmp_path, fails("killed"), gpus=2)
    assert (killed.status, killed.error) == ("lost", "rank-1: signal SIGKILL")


def test_a_follower_that_never_begins_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_runs, "_follow_from", never_begins)
    outcome = run_one(tmp_path, fails("alone"), gpus=2)
    assert outcome.status == "failed"
    assert "rank-1 ended with exit code 3 before it began" in outcome.error


def never_begins(*_):
    sys.exit(3)


@pytest.mark.slow
def test_what_cannot_be_sharded_is_trained_by_one_process(tmp_path):
    spec = of("trl_dpo")
    assert run_one(tmp_path / "1", spec, gpus=2).status == "failed"  # as it would be
    assert describe("trl_dpo").one_process
    assert run_one(tmp_path / "2", replace(spec, work=Workload(trained=1, one_process=True)), gpus=2).status == "done"


def test_a_checkpoint_that_a_follower_cannot_read_stays(tmp_path):
    spec = of("dpo")
    spec.directory(tmp_path).mkdir(parents=True)
    checkpoint.save(spec.directory(tmp_path), spec.key, {"step": 3})
    follower = rank_runs.FollowerRun(tmp_path, spec, tmp_path / "scratch")
    assert checkpoint.read(follower.led, spec.key)["step"] == 3
    (spec.directory(tmp_path) / "checkpoint.pt").write_bytes(b"no")
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.read(follower.led, spec.key)
    assert (spec.directory(tmp_path) / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("gpus", "workers", "device", "words"),
    [
        (2, 1, "cuda:1", "give --device cuda"), (3, 1, "cuda", "there are 2 here"), (2, 4, "cuda", "share the same 2"),
        (2, 1, "cuda", ""), (8, 4, "cpu", ""), (1, 4, "cuda:1", ""),
    ],
)  # fmt: skip
def test_gpus_that_are_not_there_are_one_line(monkeypatch, gpus, workers, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
        check_gpus(gpus, workers, device)


def test_what_trains_nothing_has_no_followers(tmp_path):
    spec = RunSpec("pairs", {}, title="nothing", function="builtins:repr")
    assert run_one(tmp_path, spec, gpus=64).status == "done"
