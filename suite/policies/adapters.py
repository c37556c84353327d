"""Low-rank adapters on a language model."""

import json
from pathlib import Path
from typing import Any

import torch

from suite.common.errors import UserError, first_line


def add_adapters(model: Any, rank: int) -> None:
    """Freeze `model` and put low-rank adapters, which change nothing yet, on its linear layers; the same ones every time."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))


def base_of(folder: Path) -> str:
    """The model that adapters in a folder belong to. Raises UserError if the folder does not say."""
    path = folder / "adapter_config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: names no base model ({type(error).__name__})") from error


def with_adapters(model: Any, folder: Path) -> Any:
    """The model with the adapters of a folder merged into its weights. Raises UserError if they cannot be read."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except Exception as error:  # a stranger's files: anything may be wrong with them
        raise UserError(f"{folder}: its adapters cannot be read ({type(error).__name__}: {first_line(error)})") from error
