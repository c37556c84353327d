"""A study: models, data and sizes, and the whole Config of a method in it. `suite.study.plan` says which runs they mean."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from suite.common.errors import UserError
from suite.common.registry import MethodInfo, describe, resolve
from suite.data.labelling import Labels
from suite.interfaces import Split, Task
from suite.training.settings import OptimConfig, RatingMargins

Precision = Literal["float32", "bfloat16"]
Sampler = Literal["own", "vllm"]
OF_A_METHOD = frozenset({"num_epochs", "batch_size", "warmup_steps", "warmup_share", "max_grad_norm"})
"""Fields of the optimizer that a method on pairs may have of its own; all else is the study's, rates are `learning_rates`."""
SHORT_PROMPT = 8
"""Tokens of a prompt where the study names no limit: the longest prefix of a film review."""


@dataclass(frozen=True)
class SupervisedSettings:
    """Supervised fine-tuning of the named model before everything else."""

    optim: OptimConfig
    texts: int | None = None
    """How many of the task's own texts; none of them gives a prompt. None: the chosen or reference answers that methods see."""
    max_tokens: int = 0  # longer texts of the task are cut and carry no EOS


@dataclass(frozen=True)
class TwoRewards:
    """A reward model of helpfulness and one of safety, combined (`suite.rewards.combined_reward`), as the learned reward."""

    helpfulness: str  # domain of the pairs that the first is fitted to
    safety: str  # and the second
    margins: RatingMargins = "none"  # of the helpfulness model's loss, by rating
    helpful_share: float = 0.1  # of helpfulness pairs among those that the safety model is fitted to
    threshold: float = 0.15  # safety scores below it count
    flag_words: tuple[str, ...] = ()  # as they do where one of these is in the prompt


@dataclass(frozen=True)
class Study:
    """Models, data and sizes. Profiles choose these, never code paths."""

    profile: str
    task: str  # a registered task, or module:Object
    model: str  # the language model: the reference itself or, with `sft`, what is fine-tuned to be it; folder or Hub name
    optim: OptimConfig  # shared by all methods; the learning rate comes from `learning_rates`
    reward_model: OptimConfig  # of learned rewards
    train_size: int  # training prompts; where the task gives preferences, pairs
    test_prompts: int
    max_new_tokens: int  # length limit of completions in tokens, EOS included
    validation_prompts: int = 0
    max_prompt_tokens: int | None = None  # longer prompts are left out; None where the task's are short
    source: str | None = None  # data that the task reads: Hub name, folder or file; None for the task's own
    weights: tuple[float, ...] = ()  # share of each of several sources (commas between) among pairs and prompts; sum 1
    answers: str | None = None  # prompts with reference answers, whose test split is answered; None: those of `source`
    sft: SupervisedSettings | None = None
    base: str | None = None  # the model before fine-tuning where `model` is already fine-tuned: what prompting asks
    gold_reward: str | None = None  # a model's folder or Hub name, or module:function; None: the task's, or a judge measures
    reward_name: str = "P(positive)"  # what the gold reward is, for tables and figures
    reward_maximum: float = 1.0  # no completion has a larger gold reward; infinity if there is no limit
    rating_margins: RatingMargins = "none"  # of the learned reward's loss
    two_rewards: TwoRewards | None = None  # None: one reward model of all pairs
    judge_pairs: int = 0  # pairs of the other half of the prompts, for the judge's own reward model; 0: none, methods have all
    learning_rates: Mapping[str, float] = field(default_factory=dict)  # per method; any other keeps its Config's own
    searched: tuple[str, ...] = ()  # methods whose rate an equal-size search on validation prompts has chosen
    rates_from: str | None = None  # on which model; None: none was searched
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per method, fields of its Config that the profile's size or task asks for."""
    completions_per_prompt: int = 4
    labels: Labels = "hard"
    bradley_terry_scale: float = 5.0  # scale of `bradley_terry` labels, per unit of reward
    label_noise: float = 0.0  # share of labels that are then turned
    on_policy_samples: int = 4096  # completions of a run of a method with `num_steps` and `samples_per_step` in its Config
    pool_size: int = 128  # reference samples per test prompt, shared by every N of Best-of-N
    ideal_prompts: int = 64  # so many test prompts have `ideal_samples` reference samples, for the ideal frontier
    ideal_samples: int = 512
    rows: int | None = None  # only the first so many rows of every split are read (streamed, from the Hub)
    single_turn: bool = False  # only test conversations of one turn
    lora_rank: int = 0  # methods train adapters of this rank; 0: all weights
    sampler_dtype: Precision = "float32"
    """Arithmetic in which preference completions, pool and judged answers are drawn; the frontier is measured in float32."""
    sampler: Sampler = "own"  # who draws completions; vllm: an engine with weights in `sampler_dtype`
    seed: int = 0  # of prompts, completions and evaluation; training seeds are the sweep's
    device: str = "cpu"

    @property
    def longest_prompt(self) -> int:
        """In tokens."""
        return self.max_prompt_tokens or SHORT_PROMPT

    def learns_from(self, task: Task, gold: bool) -> Split:
        """Whose prompts methods learn from: beside a judge's half, or beside validation prompts, or all but the test's."""
        if not task.gives_pairs or gold:
            return "train"
        return "methods" if self.judge_pairs else "all"


def with_micro_batch(study: Study, size: int | None) -> Study:
    """The study with so many completions per forward pass of training; None changes nothing."""
    if size is None:
        return study
    if size < 1:
        raise UserError(f"--micro-batch-size {size}: expected 1 or more")
    changes: dict[str, Any] = {name: replace(getattr(study, name), micro_batch_size=size) for name in ("optim", "reward_model")}
    if study.sft:
        changes["sft"] = replace(study.sft, optim=replace(study.sft.optim, micro_batch_size=size))
    return replace(study, **changes)


def rates_note(study: Study) -> str:
    """Where the learning rates come from, if not from a search on this very model; else nothing."""
    if study.rates_from is None:
        names = ", ".join(f"{name} {rate:g}" for name, rate in study.learning_rates.items())
        return f"learning rates were not searched: {names or 'every method has its own default'}"
    if study.model != study.rates_from:
        return f"learning rates were searched on {Path(study.rates_from).name}, not on {Path(study.model).name}"
    return ""


def rate_of(study: Study, info: MethodInfo) -> float:
    """The learning rate of a method that has one: the study's, or its own default."""
    known = {resolve(name): rate for name, rate in study.learning_rates.items()}
    return known.get(info.target, info.method.Config().optim.lr)


def is_searched(study: Study, info: MethodInfo) -> bool:
    """Whether the method's learning rate is of the search that the study's others had."""
    return info.target in {resolve(name) for name in study.searched}


def was_searched(study: Study, method: str) -> bool:
    """Whether a method, by name or module:Class, has the learning rate of a search on the study's very model."""
    return is_searched(study, describe(method)) and study.rates_from == study.model


def method_config(study: Study, info: MethodInfo, setting: Mapping[str, Any]) -> dict[str, Any]:
    """The method's whole Config as JSON: its defaults, the study's settings and optimizer, `setting` on top. A setting may
    also be one of `OF_A_METHOD`.
    Raises UserError if `setting` names a field that the method does not have, or the Config refuses it.
    """
    offline = "optim" in info.fields and "samples_per_step" not in info.fields
    of_optim = OF_A_METHOD - info.fields if offline else frozenset()
    for key in setting:
        if key not in info.fields | of_optim:
            raise UserError(f"method {info.name!r} has no setting {key!r}; it has {', '.join(sorted(info.fields))}")
    own = {resolve(name): settings for name, settings in study.settings.items()}.get(info.target, {})
    asked = {**own, **setting}
    changes = {key: asked.pop(key) for key in [*asked] if key in of_optim}
    try:
        config = info.method.Config(**asked)
        if {"num_steps", "samples_per_step"} <= info.fields - setting.keys():
            steps = study.on_policy_samples // config.samples_per_step
            config = replace(config, num_steps=max(study.optim.num_snapshots, steps))
    except (TypeError, ValueError) as error:
        raise UserError(f"method {info.name!r}: its Config cannot be made from {dict(setting)}: {error}") from error
    if "optim" in info.fields:
        config = replace(config, optim=replace(study.optim, **{"lr": rate_of(study, info), **changes}))
    return asdict(config)
