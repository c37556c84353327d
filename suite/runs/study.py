"""A frontier study: its settings, and the whole Config of a method in it. `suite.runs.plan` says which runs they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from suite.data.labelling import Labels
from suite.errors import UserError
from suite.registry import resolve
from suite.runs.stages import PROVIDED
from suite.training.loop import OptimConfig

ASSETS = Path(__file__).parent.parent / "assets"

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SupervisedSettings:
    """Supervised fine-tuning of the named model before everything else."""

    texts: int
    """How many training reviews; none of them gives a prefix."""
    max_tokens: int
    """Longer reviews are cut and carry no EOS."""
    optim: OptimConfig


@dataclass(frozen=True)
class Study:
    """Models, data and sizes of one frontier study. Profiles choose these, never code paths."""

    profile: str
    reference: str
    """Language model: folder or Hub name."""
    gold_reward: str
    """Sentiment classifier: folder or Hub name."""
    train_prompts: int
    validation_prompts: int
    test_prompts: int
    max_new_tokens: int
    """Length limit of completions in tokens, EOS included."""
    optim: OptimConfig
    """Shared by all methods; the learning rate comes from `learning_rates`."""
    reward_model: OptimConfig
    """Of the learned reward."""
    learning_rates: Mapping[str, float]
    """Per method; any other keeps its Config's own."""
    rates_from: str | None = None
    """The model on which these rates were chosen, by an equal-size search on validation prompts; None: they were not."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per method, fields of its Config that the profile's size asks for."""
    reviews: str | None = None
    """Real reviews for the prefixes; None draws them from the reference."""
    sft: SupervisedSettings | None = None
    completions_per_prompt: int = 4
    labels: Labels = "hard"
    bradley_terry_scale: float = 5.0
    """Scale of `bradley_terry` labels, per unit of reward."""
    on_policy_samples: int = 4096
    """Completions that a method which samples for itself draws in a run (a Config with `num_steps` and `samples_per_step`)."""
    samples_per_prompt: int = 1
    """Completions per evaluation prompt and snapshot."""
    pool_size: int = 128
    """Reference samples per test prompt, shared by every N of Best-of-N."""
    ideal_prompts: int = 64
    """The first so many test prompts have `ideal_samples` reference samples, from which the ideal frontier is computed."""
    ideal_samples: int = 512
    sampler_dtype: Precision = "float32"
    """Arithmetic in which prompts, preference completions and the pool are drawn; evaluation draws in float32."""
    seed: int = 0
    """Of prompts, completions and evaluation; training seeds are the sweep's."""
    device: str = "cpu"
    task: str = "imdb_sentiment"
    reward_name: str = "P(positive)"
    """What the gold reward is, for tables and figures."""
    reward_maximum: float = 1.0
    """No completion has a larger gold reward; infinity if there is no limit."""


def rates_note(study: Any) -> str:
    """Where the learning rates come from, if not from a search on this very model; else nothing."""
    names = ", ".join(f"{name} {rate:g}" for name, rate in study.learning_rates.items())
    if study.rates_from is None:
        return f"learning rates were not searched: {names or 'the methods’ own'}; methods that are not named keep their own"
    here = getattr(study, "model", None) or study.reference
    if here != study.rates_from:
        return f"learning rates were searched on {Path(study.rates_from).name}, not on {Path(here).name}"
    return ""


def method_config(method: Any, name: str, setting: Mapping[str, Any], study: Any) -> dict[str, Any]:
    """The method's whole Config as JSON: its defaults, the study's optimizer settings, `setting` on top.

    The learning rate is the searched one; a method that was not searched keeps its own default. Of `study` (a `Study` or an
    `AnswerStudy`) `settings`, `optim`, `learning_rates` and `on_policy_samples` count.

    Raises:
        UserError: `setting` names a field that the method does not have, or the method needs what the study lacks.
    """
    if not getattr(method, "trained", True) and isinstance(study, Study):
        raise UserError(f"method {name!r} trains nothing; the frontier compares trained policies (see run_hh_dialogue.py)")
    if absent := (set() if method.evaluated_from_pool else method.needs - PROVIDED):
        raise UserError(f"method {name!r} needs {', '.join(sorted(absent))}, which this study does not provide")
    fields = method.Config.__dataclass_fields__
    for key in setting:
        if key not in fields:
            raise UserError(f"method {name!r} has no setting {key!r}; it has {', '.join(fields)}")
    try:
        config = method.Config(**{**study.settings.get(name, {}), **setting})
    except (TypeError, ValueError) as error:
        raise UserError(f"method {name!r}: its Config cannot be made from {dict(setting)}: {error}") from error
    if {"num_steps", "samples_per_step"} <= fields.keys() - setting.keys():
        config = replace(config, num_steps=max(study.optim.num_snapshots, study.on_policy_samples // config.samples_per_step))
    if "optim" in fields:
        searched = {resolve(known): rate for known, rate in study.learning_rates.items()}
        lr = searched.get(resolve(name), config.optim.lr)
        config = replace(config, optim=replace(study.optim, lr=lr))
    return asdict(config)


def versions_of(method: Any) -> dict[str, Any]:
    """The part of a training run's key that names the packages that a method depends on; empty for most.

    Raises:
        UserError: One is not installed.
    """
    names = getattr(method, "packages", ())
    try:
        return {"packages": {name: version(name) for name in names}} if names else {}
    except PackageNotFoundError as error:
        raise UserError(f"method {method.name} needs the package {error.name}: pip install {error.name}") from error
