"""The specification of every run of a study: what its key holds, what it reads, what makes it, what it asks of the machine."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.registry import MethodInfo, describe, load, resolve, search_current_folder
from suite.common.sources import data_digest, resolve_model
from suite.data.local_files import KINDS
from suite.data.readers import names_of, sources_of
from suite.engine.code_hash import code_hash
from suite.engine.store import RunSpec
from suite.engine.workload import Workload
from suite.interfaces import Contender, Evaluator, Point, Split, Task
from suite.policies.model_config import check_can_reward, check_language_model, check_reward_model
from suite.study.stage_table import REWARDS, drawn_by, made_of
from suite.study.study import Study, SupervisedSettings, method_config
from suite.training.settings import OptimConfig, RatingMargins, RewardModelConfig

PROVIDED = frozenset({"pairs", "prompts", "reward"})
"""The fields of `TrainingData` that every study fills in; with a gold reward that too, and rankings where it labels."""


@dataclass(frozen=True)
class Source:
    """What one training seed learns from: all that somebody who repeats the experiment would draw again."""

    prompts: RunSpec
    pairs: RunSpec
    reward_model: RunSpec  # the learned reward
    fitted: Mapping[str, RunSpec]  # the models it is made of, by name; one alone has none


@dataclass(frozen=True)
class Shard:
    """A part of the pool of reference samples, with its gold rewards and, if a method selects by them, each seed's learned."""

    samples: RunSpec
    gold: RunSpec
    learned: Mapping[int, RunSpec]


class Specs:
    """The specifications of one study. Raises UserError if there is no such model, task or data."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.task: Task = load(study.task, "task")
        model, digest = resolve_model(study.model)
        check_language_model(model, study.model, study.longest_prompt, study.max_new_tokens)
        gold = study.gold_reward or self.task.gold_reward
        gold_reward, gold_digest = resolve_reward(gold) if gold else (None, None)
        self.where = {"model": model, "gold_reward": gold_reward, "device": study.device, "sampler": study.sampler}
        self.origin = {"model": digest, "seed": study.seed}
        self.gold = {"gold_reward": gold_digest} if gold else {}
        self.learns_from = study.learns_from(self.task, bool(gold))
        self.base: dict[str, RunSpec] = {}
        self.sources: dict[int, Source] = {}
        if study.sft:
            self.base["sft"] = self._sft(study.sft)

    def _spec(
        self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], title: str, work: Workload, *modules: str,
        **where: Any,
    ) -> RunSpec:  # fmt: skip
        code = made_of(stage, config, *modules)
        config, where = {**self.origin, **config}, {**self.where, **where}
        return RunSpec(stage, config, inputs, code_hash(*code), where, title, work, code[1][0], code)

    def _work(self, optim: OptimConfig | None = None, **sizes: Any) -> Workload:
        lengths = {"prompt": self.study.longest_prompt, "new": self.study.max_new_tokens}
        trained = {"batch": optim.micro_batch_size, "bfloat16": optim.precision == "bfloat16"} if optim else {}
        return Workload(**{**lengths, **trained, **sizes})

    # what is read

    def split(self, split: Split, size: int, *, task: str = "", source: str | None = None, draw: int = 0) -> RunSpec:
        """Prompts of one split of the study's task, or of another's data; test prompts are those of `answers`, if given.
        `draw` says which of training prompts that are drawn from more.
        Raises UserError for a local path that does not exist.
        """
        study, tests = self.study, None
        if not task:
            task, source, tests = study.task, study.source, study.answers or None
            if tests and split == "test":
                source, tests = tests, None
        name, target = load(task, "task").name, resolve(task, "task")
        for place in (source, tests):
            _check_local(name, place)
        config = {
            "task": target, "split": split, "size": size, "source": data_digest(source), "tests": data_digest(tests),
            "names": names_of(source) if source and len(sources_of(source)) > 1 else [],
            "weights": list(study.weights) if source == study.source else [],
            "rows": study.rows, "single_turn": study.single_turn, "max_prompt_tokens": study.longest_prompt,
            "max_new_tokens": study.max_new_tokens, "sft_texts": (study.sft.texts or 0) if study.sft else 0, "draw": draw,
        }  # fmt: skip
        module, work = target.partition(":")[0], self._work(drawn=size)
        title = f"{name}, {split}" + (f", draw {draw}" if draw else "")
        return self._spec("data", config, {}, title, work, module, source=source, tests=tests)

    def held_out(self, splits: Sequence[Split]) -> dict[str, RunSpec]:
        """Prompts to measure on."""
        sizes = {"validation": self.study.validation_prompts, "test": self.study.test_prompts}
        return {split: self.split(split, sizes[split]) for split in splits}

    def _sft(self, sft: SupervisedSettings) -> RunSpec:
        study, optim, count = self.study, sft.optim, sft.texts or self.study.train_size
        config: dict[str, Any] = {"config": {"optim": asdict(optim)}}
        sizes = {"trained": count * optim.num_epochs, "models": 1}
        if not sft.texts:
            answers = study.answers and self.split(self.learns_from, count, task=study.task, source=study.answers)
            texts = answers or self.split(self.learns_from, self.study.train_size)
            return self._spec("sft", config, {"texts": texts}, "SFT", self._work(optim, **sizes))
        task = resolve(study.task, "task")
        config |= {"texts": sft.texts, "max_tokens": sft.max_tokens, "task": task, "source": data_digest(study.source),
                   "max_prompt_tokens": study.longest_prompt, "max_new_tokens": study.max_new_tokens}  # fmt: skip
        work = self._work(optim, prompt=0, new=sft.max_tokens, **sizes)
        return self._spec("sft", config, {}, "SFT", work, task.partition(":")[0], source=study.source)

    # what is sampled

    def samples(
        self, title: str, num_samples: int, prompts: Mapping[str, RunSpec], *, policy: RunSpec | None = None,
        point: Point | None = None, span: tuple[int, int] | None = None, log_probs: str | None = None, dtype: str | None = None,
        seed: int | None = None,
    ) -> RunSpec:  # fmt: skip
        """Completions of `prompts` (split → run) by the reference, or by a snapshot of the run `policy`.

        Args:
            title, num_samples, prompts, policy: For people; per prompt; split → whose; a training run.
            point: Which snapshot, at which temperature; None: the reference at 1.
            span: Only these prompts, [first, last).
            log_probs, dtype: Precision in which log π_ref is kept beside the samples (None: it is not), and of the sampler.
            seed: Of the draw; None: the study's.
        """
        study, dtype = self.study, dtype or self.study.sampler_dtype
        config = {
            "num_samples": num_samples, "max_new_tokens": study.max_new_tokens, "prompts": list(span) if span else None,
            "temperature": point.temperature if point else 1.0, "snapshot": point.snapshot if point and policy else None,
            "reference_log_probs": log_probs, "sampler_dtype": dtype, "seed": study.seed if seed is None else seed,
        }  # fmt: skip
        config |= drawn_by(study.sampler, study.device)
        count = num_samples * (span[1] - span[0] if span else sum(spec.config["size"] for spec in prompts.values()))
        work = self._work(drawn=count, scored=count if log_probs else 0, models=2 if policy else 1)
        modules = [policy.config["method"].partition(":")[0]] if policy else []
        inputs = {**self.base, **prompts, **({"policy": policy} if policy else {})}
        return self._spec("samples", config, inputs, title, work, *modules)

    def scores(self, samples: RunSpec, prompts: RunSpec, num_samples: int, *, learned_by: int | None = None) -> RunSpec:
        """Gold rewards, or those that one training seed has learned, of the first samples of each prompt."""
        gold = learned_by is None
        title = f"gold rewards of {samples.title}" if gold else f"learned rewards of {samples.title}, seed {learned_by}"
        config = {"reward": "gold" if gold else "learned", "num_samples": num_samples, "precision": self.study.sampler_dtype}
        inputs = {"samples": samples, "prompts": prompts}
        inputs |= {} if learned_by is None else {"reward_model": self.source(learned_by).reward_model}
        count = samples.work.drawn * num_samples / samples.config["num_samples"]
        work = self._work(models=1, **{"rewarded" if gold else "scored": count})
        return self._spec("scores", config | (self.gold if gold else {}), inputs, title, work)

    def pool(self, prompts: RunSpec, seeds: Sequence[int]) -> list[Shard]:
        """Reference samples of test prompts: many for the first ones, from which the ideal frontier is computed."""
        study, size = self.study, prompts.config["size"]
        ideal = min(study.ideal_prompts, size)
        parts = [(max(study.ideal_samples, study.pool_size), (0, ideal)), (study.pool_size, (ideal, size))]
        found = []
        for count, span in shards(parts, POOL_SAMPLES_PER_SHARD):
            samples = self.samples(f"pool {span[0]}–{span[1] - 1}", count, {"test": prompts}, span=span)
            learned = {seed: self.scores(samples, prompts, study.pool_size, learned_by=seed) for seed in seeds}
            found.append(Shard(samples, self.scores(samples, prompts, count), learned))
        return found

    # what methods learn from

    def source(self, seed: int) -> Source:
        """Prompts, pairs and reward model of one training seed. Preferences that people gave are the same for all seeds."""
        if seed not in self.sources:
            draw = 0 if self.task.gives_pairs else seed
            prompts = self.split(self.learns_from, self.study.train_size, draw=draw)
            pairs = self._given_pairs(prompts) if self.task.gives_pairs else self._labelled_pairs(prompts, draw)
            read = prompts if self.task.gives_pairs else pairs  # its loss needs no log π_ref
            self.sources[seed] = Source(prompts, pairs, *self._learned_reward(prompts, read, seed))
        return self.sources[seed]

    def _labelled_pairs(self, prompts: RunSpec, seed: int) -> RunSpec:
        study, inputs = self.study, dict[str, RunSpec]()
        if not self.gold:
            raise UserError(f"task {self.task.name} gives no preferences; name a gold reward by which samples can be labelled")
        count = study.completions_per_prompt
        for k, (_, part) in enumerate(shards([(count, (0, study.train_size))], PROMPTS_PER_SHARD * count)):
            title = f"completions {part[0]}–{part[1] - 1}, seed {seed}"
            samples = self.samples(title, count, {"train": prompts}, span=part, log_probs=study.optim.precision, seed=seed)
            inputs |= {f"samples-{k:03d}": samples, f"scores-{k:03d}": self.scores(samples, prompts, count)}
        config = {"labels": study.labels, "scale": study.bradley_terry_scale, "noise": study.label_noise, "seed": seed}
        return self._spec("pairs", config, inputs, f"pairs, seed {seed}", Workload())

    def _given_pairs(self, prompts: RunSpec) -> RunSpec:
        work = self._work(scored=2 * self.study.train_size, models=1)
        config = {"precision": self.study.optim.precision}
        return self._spec("reference_log_probs", config, {**self.base, "data": prompts}, "log π_ref of the pairs", work)

    @property
    def num_completions(self) -> int:
        """Completions that methods learn from, at most: what passes through a model in each epoch."""
        return self.study.train_size * (2 if self.task.gives_pairs else self.study.completions_per_prompt)

    def judge_model(self, seed: int) -> RunSpec:
        """The judge's own reward model, from the half of the pairs that methods do not see."""
        check_can_reward(self.where["model"], self.study.model)
        pairs = self.split("judge", self.study.judge_pairs)
        return self._reward_model(pairs, pairs, 2 * self.study.judge_pairs, seed, "judge's reward model")

    def _learned_reward(self, prompts: RunSpec, pairs: RunSpec, seed: int) -> tuple[RunSpec, dict[str, RunSpec]]:
        """One reward model of all pairs; or one of helpfulness and one of safety, fitted alike and combined."""
        two, fit = self.study.two_rewards, partial(self._reward_model, prompts, pairs, self.num_completions, seed)
        if two is None:
            return (model := fit()), {"": model}
        mixture = {two.safety: 1 - two.helpful_share, two.helpfulness: two.helpful_share}
        fitted = {
            "helpfulness": fit("helpfulness model", {two.helpfulness: 1.0}, two.margins),
            "safety": fit("safety model", mixture),
        }
        config = {"config": {"threshold": two.threshold, "flag_words": list(two.flag_words)}, "seed": seed}
        inputs = {"prompts": prompts, "pairs": pairs, **fitted}
        work = self._work(scored=2 * self.num_completions, models=2)
        return self._spec("combined_reward", config, inputs, f"combined reward, seed {seed}", work, *REWARDS), fitted

    def _reward_model(
        self, prompts: RunSpec, pairs: RunSpec, completions: int, seed: int, title: str = "reward model",
        shares: Mapping[str, float] | None = None, margins: RatingMargins | None = None,
    ) -> RunSpec:  # fmt: skip
        """A reward model of `pairs`, or of those of some domains, in these shares."""
        optim = self.study.reward_model
        work = self._work(optim, trained=completions * optim.num_epochs, models=2)
        settings = RewardModelConfig(optim=optim, rating_margins=margins or self.study.rating_margins)
        config = {"config": asdict(settings), "sampler_dtype": self.study.sampler_dtype, "seed": seed,
                  "shares": dict(shares or {})}  # fmt: skip
        inputs = {**self.base, "prompts": prompts, "pairs": pairs}
        return self._spec("reward_model", config, inputs, f"{title}, seed {seed}", work)

    def policy(self, name: str, setting: Mapping[str, Any], seed: int) -> tuple[Contender, RunSpec]:
        """One method with one setting and one training seed; one that trains nothing is given the model before fine-tuning.
        Raises UserError for an unknown method or setting, or if it needs what the study does not provide.
        """
        study, info = self.study, describe(name)
        self.check_needs(name, info)
        config, label = method_config(study, info, setting), label_of(setting)
        title = f"{info.name} {label}".strip() + f" seed {seed}"
        whole: dict[str, Any] = {"method": info.target, "config": config, "seed": seed, "max_new_tokens": study.max_new_tokens}
        whole |= {"sampler_dtype": study.sampler_dtype, **info.versions}
        module = info.target.partition(":")[0]
        if not info.trained:
            model, digest = resolve_model(study.base or study.model)
            check_language_model(model, study.base or study.model, study.longest_prompt, study.max_new_tokens)
            whole |= {"num_snapshots": 1, "model": digest}
            shown = self.source(seed).prompts
            inputs = {"prompts": shown, "pairs": shown}
            spec = self._spec("policy", whole, inputs, title, self._work(models=1), module, model=model)
            return Contender(info.name, label, seed, 1), spec
        optim, source = study.optim, self.source(seed)
        whole |= {"num_snapshots": optim.num_snapshots, "precision": optim.precision, "lora_rank": study.lora_rank}
        inputs = {**self.base, "prompts": source.prompts, "pairs": source.pairs}
        if "reward" in info.needs:
            check_can_reward(self.where["model"], study.model)
            inputs["reward_model"] = source.reward_model
        if "gold_reward" in info.needs:
            whole |= self.gold
        rewards = REWARDS if info.needs & {"reward", "gold_reward"} else ()
        sizes: dict[str, Any] = {"adapters": study.lora_rank, "models": 3 if rewards else 2, "one_process": info.one_process}
        if "samples_per_step" in config:
            whole |= {} if info.one_process else drawn_by(study.sampler, study.device)
            readers = len(source.fitted) if "reward" in info.needs else 0
            sizes |= _on_own_samples(config, readers)
        else:
            sizes |= {"trained": self.num_completions * config.get("optim", {}).get("num_epochs", 1)}
        spec = self._spec("policy", whole, inputs, title, self._work(optim, **sizes), module, *rewards)
        return Contender(info.name, label, seed, optim.num_snapshots), spec

    def check_needs(self, name: str, info: MethodInfo) -> None:
        """Raises UserError if the method needs what the study does not provide."""
        ranked = not self.task.gives_pairs and not self.study.label_noise
        provided = PROVIDED | self.gold.keys() | ({"rankings"} if ranked else set())
        if absent := info.needs - provided:
            raise UserError(f"method {name!r} needs {', '.join(sorted(absent))}, which this study does not provide")

    def measurements(
        self, evaluator: Evaluator, samples: RunSpec, point: Point, policy: RunSpec | None, **prompts: RunSpec
    ) -> RunSpec:
        """An evaluator's numbers of samples."""
        kind = type(evaluator)
        config = {
            "evaluator": f"{kind.__module__}:{kind.__qualname__}", "settings": getattr(evaluator, "settings", {}),
            "snapshot": point.snapshot, "temperature": point.temperature,
            **(self.gold if "gold_reward" in evaluator.needs else {}),
        }  # fmt: skip
        inputs = {**self.base, **prompts, "samples": samples, **({"policy": policy} if policy else {})}
        modules = [kind.__module__, *([policy.config["method"].partition(":")[0]] if policy else [])]
        drawn = samples.work.drawn
        work = self._work(scored=2 * WHOLE * drawn, rewarded=drawn, models=2)
        return self._spec("measurements", config, inputs, f"{evaluator.name} of {samples.title}", work, *modules)


WHOLE = 1.1
"""Scoring a sequence over the whole vocabulary, for the exact KL, costs so many of its log-probs."""
PROMPTS_PER_SHARD = 256
"""Training prompts of one run."""
POOL_SAMPLES_PER_SHARD = 4096


def _on_own_samples(config: Mapping[str, Any], readers: int) -> dict[str, Any]:
    """What a method that draws its own samples asks for, with so many models in its learned reward (0: the gold reward). All of
    them are read by policy, reference and reward and passed over several times; where the best of `n` alone are learned from,
    the reward alone reads them and only these are passed over. Where one part of a run follows another, the policy of the
    first is still there.
    """
    drawn = config["num_steps"] * config["samples_per_step"]
    sifted = drawn * config.get("rejection_share", 1.0) if "n" in config else 0.0
    whole = drawn - sifted
    return {
        "drawn": drawn, "scored": 2 * whole + readers * drawn, "rewarded": 0 if readers else drawn,
        "trained": (whole + sifted / config.get("n", 1)) * config["epochs_per_step"], "state": 8 if whole else 4,
        "models": 2 + max(1, readers) + bool(sifted and whole),
    }  # fmt: skip


def label_of(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{key} = {value}" for key, value in setting.items())


def shards(parts: Sequence[tuple[int, tuple[int, int]]], samples: int) -> list[tuple[int, tuple[int, int]]]:
    """(samples per prompt, [first, last) prompts) of runs of at most so many samples, for workers to share."""
    found = []
    for count, (begin, end) in parts:
        size = max(1, samples // count)
        found += [(count, (first, min(first + size, end))) for first in range(begin, end, size)]
    return found


def _check_local(task: str, sources: str | None) -> None:
    for given in filter(None, (part.strip() for part in (sources or "").split(","))):
        is_local = given.startswith((".", "/", "~")) or Path(given).suffix in {*KINDS, ".gz"}
        if is_local and not Path(given).expanduser().exists():
            raise UserError(f"{task}: {given} does not exist")


def resolve_reward(name: str) -> tuple[str, str]:
    """Where a gold reward is, and what identifies its contents. Raises UserError if there is no such model or module."""
    from suite.rewards.open_reward import is_function, open_reward

    if not is_function(name):
        folder, digest = resolve_model(name)
        check_reward_model(folder, name)
        return folder, digest
    search_current_folder()
    open_reward(name)
    module = name.partition(":")[0]
    beside = Path(sys.modules[module].__file__ or "").parent.glob("*")  # what it may import without being a package
    return name, f"{name}@{code_hash([module], roots=[path.stem for path in beside])}"
