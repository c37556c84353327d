"""A reward by its name on the command line: a folder, a Hub name resolved to one, or module:function."""

import math
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.registry import imported, search_current_folder
from suite.interfaces import RewardFunction
from suite.policies.model_config import COMBINED
from suite.rewards.ngram_reward import WEIGHTS, NgramReward


def open_reward(name: str, *, device: str = "cpu") -> RewardFunction:
    """A two-class text classifier (P(positive)), a one-label reward model, two of these combined, or a function of your own.

    `name` is the folder of a `save_pretrained` model, of the weights of n-grams, or of a combined reward; or module:function,
    called as `function(prompts, completions)` with two lists of texts, which returns one number each. The module may lie in the
    current folder.

    Raises:
        UserError: There is no such model or function, or it is none.
    """
    if is_function(name):
        return _function(name)
    if (Path(name) / WEIGHTS).exists():
        return NgramReward.load(name)
    if (Path(name) / COMBINED).exists():
        from suite.rewards.combined_reward import CombinedReward

        return CombinedReward.load(name, device=device)
    from suite.policies.model_config import load_config
    from suite.rewards.reward_model import RewardModel
    from suite.rewards.text_rewards import ClassifierReward

    one_label = load_config(name).num_labels == 1
    return (RewardModel if one_label else ClassifierReward).load(name, device=device)


def is_function(name: str) -> bool:
    """Whether `name` has the form module:function."""
    module, _, function = name.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _function(name: str) -> RewardFunction:
    search_current_folder()
    function = imported(name, f"reward {name!r}")
    if not callable(function):
        raise UserError(f"reward {name!r} is a {type(function).__name__}; expected a function of (prompts, completions)")

    def checked(prompts: Any, completions: Any) -> list[float]:
        given = function(list(prompts), list(completions))
        try:
            values = [float(value) for value in given]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"reward {name!r} returned {str(given)[:60]!r}; one number for each completion is needed"
            ) from error
        if len(values) != len(completions):
            raise UserError(
                f"reward {name!r} returned {len(values)} values for {len(completions)} completions; one each is needed"
            )
        for place, value in enumerate(values):
            if not math.isfinite(value):
                raise UserError(f"reward {name!r} returned {value} for {completions[place]!r}; finite numbers are needed")
        return values

    return checked
