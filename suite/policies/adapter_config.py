"""Which model adapters in a folder belong to. No torch."""

import json
from pathlib import Path

from suite.common.errors import UserError


def base_of(folder: Path) -> str:
    """The model that adapters in a folder belong to. Raises UserError if the folder does not say."""
    path = folder / "adapter_config.json"
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: names no base model ({type(error).__name__})") from error
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: names no base model; set base_model_name_or_path")
    return base
