"""TensorBoard and Weights & Biases beside `metrics.jsonl`, through accelerate's trackers; off unless asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from suite.errors import UserError
from suite.runs.run_store import RunSpec

Tracker = Literal["none", "tensorboard", "wandb"]
PROJECT = "rlhf-vs-dpo"


def check_tracker(kind: Tracker) -> None:
    """Stop before anything is computed if the tracker is not installed.

    Raises:
        UserError: Says what to install.
    """
    from accelerate.utils import is_tensorboard_available, is_wandb_available

    installed = {"none": lambda: True, "tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
    if not installed[kind]():
        raise UserError(f"--tracker {kind}: it is not installed; pip install {kind}")


def open_tracker(kind: Tracker, root: Path, spec: RunSpec, *, step: int) -> Any:
    """One run of a tracker, that goes on from `step`: `log(metrics, step=…)`, `finish()`; None for "none".

    TensorBoard writes into `<root>/tensorboard`; of a run that was killed it takes out what will be logged again. Weights &
    Biases writes into `<root>/wandb`; without WANDB_API_KEY it stays offline (`wandb sync` sends it later), and a resumed run
    goes on under its key.
    """
    if kind == "none":
        return None
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # without it they cannot say anything
    name = "".join(c if c.isalnum() or c in "._-=" else "_" for c in f"{spec.title}-{spec.key[:8]}")
    tracker: Any
    if kind == "tensorboard":
        tracker = TensorBoardTracker(name, root / "tensorboard" / spec.stage, purge_step=step)
        tracker.start()
        tracker.writer.add_text("config", f"```json\n{json.dumps(spec.config, indent=1)}\n```")
        return tracker
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    root.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, "id": spec.key[:16], "group": spec.stage, "config": dict(spec.config)}
    tracker = WandBTracker(PROJECT, **settings, dir=str(root), mode=mode, resume="allow")
    tracker.start()
    return tracker
