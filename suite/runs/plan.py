"""Which runs a frontier study means: their specifications, and the plan of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from suite.registry import load_method, resolve
from suite.runs.run_store import RunSpec
from suite.runs.stages import STAGES
from suite.runs.study import Study, SupervisedSettings, method_config, versions_of
from suite.sources import data_digest, resolve_model
from suite.training.reward_modeling import RewardModelConfig

PROMPTS_PER_SHARD = 256
POOL_SAMPLES_PER_SHARD = 4096


@dataclass(frozen=True)
class TrainedRun:
    """One method, setting and seed, with the evaluations of its snapshots in order."""

    method: str
    label: str
    setting: Mapping[str, Any]
    seed: int
    train: RunSpec
    evaluations: list[RunSpec]


@dataclass(frozen=True)
class PoolSetting:
    """A method that keeps the best of n samples of the pool, by the learned or by the gold reward."""

    method: str
    label: str
    n: int
    learned: bool


@dataclass(frozen=True)
class Plan:
    """Every run of a study."""

    study: Study
    trained: list[TrainedRun]
    reference_evaluation: RunSpec
    pairs: RunSpec
    pool: list[RunSpec]
    pool_settings: list[PoolSetting]
    """The methods that only select from the pool."""
    pool_scores: list[RunSpec]
    """The pool's learned rewards, if a method selects by them; as `pool`."""
    reward_model: RunSpec

    def without(self, failed: set[str]) -> Plan:
        """The plan less the trained runs of which a part failed (by key), and less what selects by scores that failed."""
        whole = [r for r in self.trained if failed.isdisjoint(spec.key for spec in (r.train, *r.evaluations))]
        scores, settings = self.pool_scores, self.pool_settings
        if not failed.isdisjoint(spec.key for spec in scores):
            scores, settings = [], [setting for setting in settings if not setting.learned]
        return replace(self, trained=whole, pool_scores=scores, pool_settings=settings)

    @property
    def targets(self) -> list[RunSpec]:
        return [
            self.reference_evaluation, self.pairs, *(run.train for run in self.trained), *self.pool, *self.pool_scores,
            *(evaluation for run in self.trained for evaluation in run.evaluations),
        ]  # fmt: skip


class _Specs:
    """The specification of each stage's run for one study: what its key holds, what it reads."""

    def __init__(self, study: Study) -> None:
        (reference, digest), (gold_reward, gold_digest) = map(resolve_model, (study.reference, study.gold_reward))
        self.study = study
        self.where = {
            "reference": reference, "gold_reward": gold_reward, "reviews": study.reviews, "device": study.device,
        }  # fmt: skip
        self.origin = {"reference": digest, "seed": study.seed}
        self.drawn = {**self.origin, "sampler_dtype": study.sampler_dtype}
        self.gold = {"gold_reward": gold_digest}
        self.reviews = {"reviews": data_digest(study.reviews)}
        self.base = {"sft": self.sft(study.sft)} if study.sft else {}

    def spec(
        self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], title: str, cost: float, *modules: str
    ) -> RunSpec:
        return RunSpec(stage, config, inputs, STAGES[stage].code(modules), self.where, title, cost)

    def sft(self, sft: SupervisedSettings) -> RunSpec:
        config = {"config": {"optim": asdict(sft.optim)}, "texts": sft.texts, "max_tokens": sft.max_tokens}
        return self.spec("sft", {**self.origin, **config, **self.reviews}, {}, "SFT", sft.texts * sft.max_tokens)

    def prompts(self, split: str, size: int) -> RunSpec:
        sft_texts = self.study.sft.texts if self.study.sft else 0
        config = {**self.drawn, "split": split, "size": size, **self.reviews, "sft_texts": sft_texts}
        candidates = size * {"train": 1.1, "validation": 33, "test": 14}[split]
        return self.spec("prompts", config, self.base, f"{split} prompts", 8.0 * candidates)

    def completions(
        self, of: RunSpec, title: str, num_samples: int, shard: int, prompts: tuple[int, int] | None = None, **more: Any
    ) -> list[RunSpec]:
        """One run per `shard` prompts, so that workers share the work and an interruption loses little."""
        specs = []
        begin, end = prompts or (0, of.config["size"])
        for first, last in ((begin + a, begin + b) for a, b in spans(end - begin, shard)):
            config = {**self.drawn, **self.gold, **more, "prompts": [first, last], "num_samples": num_samples}
            config["max_new_tokens"] = self.study.max_new_tokens
            cost = 2.0 * (last - first) * num_samples * self.study.max_new_tokens
            inputs = {**self.base, "prompts": of}
            specs.append(self.spec("completions", config, inputs, f"{title} {first}–{last - 1}", cost))
        return specs

    def pairs(self, shards: Sequence[RunSpec]) -> RunSpec:
        config = {"labels": self.study.labels, "scale": self.study.bradley_terry_scale, "seed": self.study.seed}
        return self.spec("pairs", config, {f"completions-{i:03d}": shard for i, shard in enumerate(shards)}, "pairs", 1.0)

    def reward_model(self, prompts: RunSpec, pairs: RunSpec) -> RunSpec:
        study = self.study
        config = {**self.drawn, "config": asdict(RewardModelConfig(optim=study.reward_model))}
        cost = 8.0 * study.reward_model.num_epochs * self.num_pairs() * study.max_new_tokens
        return self.spec("reward_model", config, {**self.base, "prompts": prompts, "pairs": pairs}, "reward model", cost)

    def scores(self, prompts: RunSpec, completions: RunSpec, reward_model: RunSpec) -> RunSpec:
        inputs = {"prompts": prompts, "completions": completions, "reward_model": reward_model}
        title = completions.title.replace("pool", "scores of the pool")
        config = {"precision": self.study.sampler_dtype, "num_samples": self.study.pool_size}
        return self.spec("scores", config, inputs, title, completions.cost / 2)

    def pool(self, prompts: RunSpec) -> list[RunSpec]:
        """Reference samples of test prompts: many for the first ones, from which the ideal frontier is computed."""
        study, size = self.study, prompts.config["size"]
        ideal = min(study.ideal_prompts, size)
        parts = [(max(study.ideal_samples, study.pool_size), (0, ideal)), (study.pool_size, (ideal, size))]
        return [
            spec
            for count, span in parts
            for spec in self.completions(prompts, "pool", count, max(1, POOL_SAMPLES_PER_SHARD // count), prompts=span)
        ]

    def num_pairs(self) -> int:
        """Pairs of all training prompts, those that will be dropped included."""
        completions = self.study.completions_per_prompt
        return self.study.train_prompts * completions * (completions - 1) // 2

    def train(self, name: str, config: Mapping[str, Any], seed: int, title: str, **data: RunSpec) -> RunSpec:
        """One training run on `data`: prompts, pairs, and the reward model if the method needs it."""
        study, target = self.study, resolve(name)
        whole = {
            **self.drawn, **self.gold, "method": target, "config": config, "seed": seed,
            "num_snapshots": study.optim.num_snapshots, "precision": study.optim.precision,
            "max_new_tokens": study.max_new_tokens,
        }  # fmt: skip
        cost = 8.0 * study.optim.num_epochs * self.num_pairs() * study.max_new_tokens
        if "samples_per_step" in config:  # drawn, scored and passed over several times
            cost = 8.0 * config["num_steps"] * config["samples_per_step"] * config["epochs_per_step"] * study.max_new_tokens
        whole |= versions_of(load_method(name))
        modules = [target.partition(":")[0]]
        if load_method(name).needs & {"reward", "gold_reward"}:
            modules += ["suite.rewards.reward_model", "suite.rewards.text_rewards"]
        return self.spec("train", whole, {**self.base, **data}, title, cost, *modules)

    def evaluation(self, prompts: Mapping[str, RunSpec], title: str, **policy: RunSpec) -> list[RunSpec]:
        """One run per snapshot of the `policy` run, or one for the reference if there is none."""
        num_samples, length = self.study.samples_per_prompt, self.study.max_new_tokens
        config = {**self.origin, **self.gold, "num_samples": num_samples, "max_new_tokens": length}
        cost = 4.0 * sum(spec.config["size"] for spec in prompts.values()) * num_samples * length
        inputs = {**self.base, **prompts, **policy}
        if not policy:
            return [self.spec("evaluation", {**config, "snapshot": None}, inputs, title, cost)]
        return [
            self.spec("evaluation", {**config, "snapshot": k}, inputs, f"{title}, snapshot {k + 1}", cost)
            for k in range(self.study.optim.num_snapshots)
        ]


def plan_study(
    study: Study, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int], *, test: bool = True, pool: bool = True
) -> Plan:
    """The runs of `study` over `grid` (method → settings) and training `seeds`.

    Args:
        study: Models, data, sizes.
        grid: Method name or "module:Class" → settings that replace fields of the method's Config.
        seeds: Training seeds; methods that do not train ignore them.
        test: Also evaluate on test prompts and draw the pool; the learning-rate search must not.
        pool: Draw it if nothing of `grid` selects from it, too: for the ideal frontier and the reference's test reward.

    Raises:
        UserError: Unknown method, setting or model, or a method that needs what the study does not provide.
    """
    make = _Specs(study)
    prompts = make.prompts("train", study.train_prompts)
    precision = study.optim.precision
    pairs = make.pairs(
        make.completions(prompts, "completions", study.completions_per_prompt, PROMPTS_PER_SHARD, reference_log_probs=precision)
    )
    held_out = {"validation": make.prompts("validation", study.validation_prompts)}
    if test:
        held_out["test"] = make.prompts("test", study.test_prompts)
    pool = pool or any(load_method(name).evaluated_from_pool for name in grid)
    shards = make.pool(held_out["test"]) if test and pool else []
    reward_model = make.reward_model(prompts, pairs)
    trained: list[TrainedRun] = []
    pool_settings: list[PoolSetting] = []
    for name, settings in grid.items():
        method = load_method(name)
        for setting in settings:
            config = method_config(method, name, setting, study)
            label = ", ".join(f"{key} = {value}" for key, value in setting.items())
            if method.evaluated_from_pool:
                learned = "reward" in method.needs
                pool_settings.append(PoolSetting(method.name, label or f"n = {config['n']}", config["n"], learned))
                continue
            for seed in seeds:
                title = f"{method.name} {label}".strip() + f" seed {seed}"
                data = {"prompts": prompts, "pairs": pairs}
                if "reward" in method.needs:
                    data["reward_model"] = reward_model
                train = make.train(name, config, seed, title, **data)
                evaluations = make.evaluation(held_out, title, policy=train)
                trained.append(TrainedRun(method.name, label, setting, seed, train, evaluations))
    scored = any(setting.learned for setting in pool_settings)
    pool_scores = [make.scores(held_out["test"], shard, reward_model) for shard in shards] if scored else []
    reference = make.evaluation(held_out, "reference")[0]
    return Plan(study, trained, reference, pairs, shards, pool_settings, pool_scores, reward_model)


def spans(total: int, size: int) -> list[tuple[int, int]]:
    """Consecutive [first, last) of at most `size`."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]
