"""TensorBoard and Weights & Biases beside `metrics.jsonl`, through accelerate's trackers; off unless asked for."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from suite.common.errors import UserError

Tracker = Literal["none", "tensorboard", "wandb"]


def check_tracker(kind: Tracker) -> None:
    """Raise a UserError that says what to install, before anything is computed, if the tracker is not installed."""
    from accelerate.utils import is_tensorboard_available, is_wandb_available

    installed = {"none": lambda: True, "tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
    if not installed[kind]():
        raise UserError(f"--tracker {kind}: it is not installed; pip install {kind}")


def open_tracker(kind: Tracker, root: Path, *, stage: str, title: str, key: str, config: Mapping[str, Any], step: int) -> Any:
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
    name = "".join(c if c.isalnum() or c in "._-=" else "_" for c in f"{title}-{key[:8]}")
    if kind == "tensorboard":
        tracker: Any = TensorBoardTracker(name, root / "tensorboard" / stage, purge_step=step)
        tracker.start()
        tracker.writer.add_text("config", f"```json\n{json.dumps(config, indent=1)}\n```")
        return tracker
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    root.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, "id": key[:16], "group": stage, "config": dict(config)}
    tracker = WandBTracker("rlhf-vs-dpo", **settings, dir=str(root), mode=mode, resume="allow")
    tracker.start()
    return tracker
