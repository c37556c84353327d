"""A judge by its name on the command line: openai:MODEL, local:MODEL, reward:FOLDER, human:FILE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.errors import UserError
from suite.judges.bill import NO_LIMITS, Limits
from suite.judges.human_judge import HumanJudge
from suite.judges.judging import Judge
from suite.judges.openai_judge import OpenAIJudge
from suite.judges.templates import Template

PARAMETERS = {"temperature": 0, "max_tokens": 200}
KINDS = "openai:MODEL, local:FOLDER_OR_HUB_NAME, reward:FOLDER_OR_HUB_NAME or human:FILE.csv"


def open_judge(
    name: str,
    template: Template,
    *,
    parameters: Mapping[str, Any] = PARAMETERS,
    seed: int = 0,
    limits: Limits = NO_LIMITS,
    price: tuple[float, float] | None = None,
    device: str = "cpu",
) -> Judge:
    """The judge that `name` stands for; only an OpenAI judge has parameters, limits and a price.

    Raises:
        UserError: Unknown kind, or what it needs is missing.
    """
    kind, _, what = name.partition(":")
    if kind == "openai" and what:
        return OpenAIJudge(what, template, parameters=parameters, seed=seed, limits=limits, price=price)
    if kind == "human" and what:
        return HumanJudge(Path(what).expanduser(), template, seed=seed)
    if kind not in ("local", "reward") or not what:
        raise UserError(f"judge {name!r} is unknown; use {KINDS}")
    from suite.sources import resolve_model

    folder, digest = resolve_model(what)
    if kind == "local":
        from suite.judges.local_judge import LocalJudge
        from suite.policies.causal_lm import CausalLMPolicy

        return LocalJudge(name, CausalLMPolicy.load(folder, device=device), template, digest=digest, seed=seed)
    from suite.judges.reward_judge import RewardJudge
    from suite.rewards.open_reward import open_reward

    return RewardJudge(name, open_reward(folder, device=device), digest=digest)
