"""Low-rank adapters on a language model."""

from typing import Any

import torch


def add_adapters(model: Any, rank: int) -> None:
    """Freeze `model` and put low-rank adapters, which change nothing yet, on its linear layers; the same ones every time."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))
