"""Trackers get every row that metrics.jsonl gets; without one nothing is written."""

import json
from pathlib import Path

import pytest

from suite.common.errors import UserError
from suite.engine import tracking
from suite.engine.store import RunSpec, open_run
from suite.engine.tracking import check_tracker

ROWS = [{"loss": 0.7, "rewards/margins": 0.0}, {"loss": 0.5, "rewards/margins": 1.5}]


def logged(root, tracker):
    with open_run(root, RunSpec("train", {"config": {"beta": 0.1}, "seed": 0}, title="DPO beta = 0.1 seed 0"), tracker) as run:
        for step, row in enumerate(ROWS, 1):
            run.log(step, row)
        run.finish()
    return run


def test_tensorboard_holds_every_metric_of_every_step(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged(tmp_path, "tensorboard")
    (folder,) = (tmp_path / "tensorboard" / "train").iterdir()
    assert folder.name.startswith("DPO_beta_=_0.1_seed_0-")
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    for name in ROWS[0]:
        assert [(e.step, pytest.approx(e.value)) for e in events.Scalars(name)] == [
            (k, row[name]) for k, row in enumerate(ROWS, 1)
        ]


def test_a_run_that_goes_on_has_every_step_once(tmp_path):
    """Killed after three rows, of which the checkpoint knows the first: rows 2 and 3 are logged again, and shown once."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last, loss in ((1, 3, 0.7), (2, 4, 0.5)):
        with open_run(tmp_path, RunSpec("train", {"seed": 0}, title="DPO"), "tensorboard") as run:
            for step in range(first, last + 1):
                run.log(step, {"loss": loss})
    (folder,) = (tmp_path / "tensorboard" / "train").iterdir()
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(1, 0.7), (2, 0.5), (3, 0.5), (4, 0.5)]


def test_wandb_needs_no_account(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = logged(tmp_path, "wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run.spec.key[:16])
    assert list(folder.glob("*.wandb"))


def test_off_by_default(tmp_path):
    run = logged(tmp_path, "none")
    assert [json.loads(line)["loss"] for line in (run.directory / "metrics.jsonl").read_text().splitlines()] == [0.7, 0.5]
    assert {path.name for path in tmp_path.iterdir()} == {"train"}


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch):
    import accelerate.utils

    monkeypatch.setattr(accelerate.utils, "is_wandb_available", lambda: False)
    check_tracker("none")
    with pytest.raises(UserError, match="pip install wandb"):
        check_tracker("wandb")


def test_the_page_says_which_trackers_there_are():
    page = (Path(__file__).parents[2] / "docs" / "training_diagnostics.md").read_text()
    for kind in tracking.Tracker.__args__[1:]:
        assert f"--tracker {kind}" in page
