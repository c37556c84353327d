"""Low-rank adapters on a language model."""

from pathlib import Path
from typing import Any

import torch

from suite.common.errors import UserError, first_line
from suite.policies.surgery import check_finite


def add_adapters(model: Any, rank: int) -> None:
    """Freeze `model` and put low-rank adapters, which change nothing yet, on its linear layers; the same ones every time."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))


def with_adapters(model: Any, folder: Path) -> Any:
    """The model with the adapters of a folder merged into its weights. Raises UserError if they cannot be read."""
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict, load_peft_weights

    try:
        found = PeftModel.from_pretrained(model, str(folder))
        kept, given = get_peft_model_state_dict(found), load_peft_weights(str(folder), device="cpu")
        merged = found.merge_and_unload()
    except Exception as error:  # a stranger's files: anything may be wrong with them
        raise UserError(f"{folder}: its adapters cannot be read ({type(error).__name__}: {first_line(error)})") from error
    if wrong := kept.keys() ^ given.keys():
        raise UserError(f"{folder}: adapters of other layers than the model's, or not all of them ({sorted(wrong)[0]}, …)")
    check_finite(merged, folder)
    return merged
