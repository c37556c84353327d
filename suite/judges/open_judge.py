"""A judge by its name on the command line: openai:MODEL, local:MODEL, reward:FOLDER, human:FILE, or module:Class."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.registry import load, targets
from suite.common.sources import resolve_model
from suite.interfaces import Judge
from suite.judges.bill import NO_LIMITS, Limits
from suite.judges.judging import shown
from suite.judges.templates import Template

PARAMETERS = {"temperature": 0, "max_tokens": 200}
EXAMPLE = f"for example '{json.dumps(PARAMETERS)}'"
MOST_DEPTH = 20
KINDS = "openai:MODEL, local:FOLDER_OR_HUB_NAME, reward:FOLDER_OR_HUB_NAME, human:FILE.csv or module:Class"


def parse_parameters(given: str) -> dict[str, Any]:
    """Parameters of a request, by default `PARAMETERS`. Raises UserError if they are no JSON object of plain values."""
    if not given:
        return dict(PARAMETERS)
    try:
        found = json.loads(given)
        json.dumps(found, allow_nan=False)
        if _depth(found) > MOST_DEPTH:
            raise ValueError("nested too deeply")
    except (ValueError, RecursionError) as error:
        raise UserError(f"--parameters {shown(given, 60)!r}: not JSON ({shown(error)}); {EXAMPLE}") from None
    if not isinstance(found, dict):
        raise UserError(f"--parameters {shown(given, 60)!r}: expected an object; {EXAMPLE}")
    return found


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


@dataclass(frozen=True)
class JudgeSettings:
    """What a judge is opened with; each takes of it what it knows."""

    template: Template  # what it is asked
    parameters: Mapping[str, Any]  # of the request to a server
    seed: int  # of fences
    limits: Limits
    price: tuple[float, float] | None  # USD per million prompt and completion tokens, where it is not known
    device: str  # of a model


def open_judge(
    name: str, template: Template, *, parameters: Mapping[str, Any] = PARAMETERS, seed: int = 0, limits: Limits = NO_LIMITS,
    price: tuple[float, float] | None = None, device: str = "cpu",
) -> Judge:  # fmt: skip
    """The judge that `name` stands for: "kind:what", opened by the registered function of that kind as
    `function(what, settings)`; or "module:Class", opened as `Class(settings)`. Raises UserError if the kind is unknown or what
    the judge needs is missing.
    """
    settings = JudgeSettings(template, parameters, seed, limits, price, device)
    kind, _, what = name.partition(":")
    if not what:
        raise UserError(f"judge {name!r} is unknown; use {KINDS}")
    if kind in targets("judge"):
        return load(kind, "judge")(what, settings)
    return load(name, "judge")(settings)


def open_openai(what: str, settings: JudgeSettings) -> Judge:
    """A model behind OPENAI_BASE_URL."""
    from suite.judges.openai_judge import OpenAIJudge

    known = {name: getattr(settings, name) for name in ("parameters", "seed", "limits", "price")}
    return OpenAIJudge(what, settings.template, **known)


def open_local(what: str, settings: JudgeSettings) -> Judge:
    """A language model on this machine."""
    from suite.judges.local_judge import LocalJudge
    from suite.policies.causal_lm import CausalLMPolicy

    folder, digest = resolve_model(what)
    policy = CausalLMPolicy.load(folder, device=settings.device)
    return LocalJudge(f"local:{what}", policy, settings.template, digest=digest, seed=settings.seed)


def open_reward_judge(what: str, settings: JudgeSettings) -> Judge:
    """A reward model or classifier."""
    from suite.judges.reward_judge import RewardJudge
    from suite.rewards.open_reward import open_reward

    folder, digest = resolve_model(what)
    return RewardJudge(f"reward:{what}", open_reward(folder, device=settings.device), digest=digest)


def open_human(what: str, settings: JudgeSettings) -> Judge:
    """People, who fill in a file."""
    from suite.judges.human_judge import HumanJudge

    try:
        sheet = Path(what).expanduser()
    except RuntimeError as error:
        raise UserError(f"human:{shown(what)}: {error}; name a CSV file that can be written") from None
    return HumanJudge(sheet, settings.template, seed=settings.seed)
