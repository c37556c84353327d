"""A win-rate study: who answers which prompts at which temperatures, and the runs this means."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from suite.data.preference_tables import LOADERS
from suite.data.text_parts import INVENTED, Part
from suite.data.text_tasks import load_task
from suite.errors import UserError
from suite.registry import load_method, resolve
from suite.rewards.open_reward import is_function, open_reward
from suite.runs.code_hash import code_hash
from suite.runs.run_store import RunSpec
from suite.runs.study import Precision, method_config, versions_of
from suite.runs.text_stages import STAGES
from suite.sources import data_digest, resolve_model
from suite.training.loop import OptimConfig
from suite.training.reward_modeling import RewardModelConfig

REFERENCE_ANSWERS = {
    "hh_dialogue": "the chosen answer", "tldr_summarization": "the reference summary",
    "cnn_dm_transfer": "the article's highlights", "own_data": "the chosen answer",
}  # fmt: skip


REWARDS = ("suite.rewards.open_reward", "suite.rewards.reward_model", "suite.rewards.text_rewards")
"""The code of gold rewards."""


@dataclass(frozen=True)
class AnswerStudy:
    """Models, data and sizes. Profiles choose these, never code paths."""

    profile: str
    task: str
    """A module of `suite.data.tasks`."""
    model: str
    """Language model before fine-tuning, or the fine-tuned one (`sft` None): folder or Hub name."""
    pairs: str
    """Preference data: Hub name, folder, file, or "invented"."""
    answers: str | None
    """Prompts with reference answers, whose test split is answered; None: those of `pairs`, with the chosen answers."""
    sft: OptimConfig | None
    """Fine-tuning of `model` on the chosen answers (Preferred-FT) or, where there are any, on `answers`."""
    train_pairs: int
    judge_pairs: int
    """Of the other half of the prompts, for the judge's own reward model; 0: it has none, and methods have all prompts."""
    test_prompts: int
    max_prompt_tokens: int
    max_new_tokens: int
    optim: OptimConfig
    reward_model: OptimConfig
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per method, fields of its Config."""
    base: str | None = None
    """The model before fine-tuning where `model` is already fine-tuned: what prompting asks."""
    single_turn: bool = False
    """Only conversations of one turn."""
    rows: int | None = None
    """Only the first so many rows of every split are read (streamed, from the Hub)."""
    on_policy_samples: int = 4096
    gold_reward: str | None = None
    """What answers are measured by instead of a judge: a model's folder or Hub name, or module:function. Then there is no
    judge's half: methods have all pairs but those of test and validation prompts."""
    lora_rank: int = 0
    sampler_dtype: Precision = "float32"
    seed: int = 0
    device: str = "cpu"

    @property
    def part(self) -> Part:
        """The part of the pairs that methods learn from."""
        return "train" if self.gold_reward else "methods" if self.judge_pairs else "all"


@dataclass(frozen=True)
class Answerer:
    """A policy that is asked: a snapshot of a run, or the reference (`run` None); by Best-of-`n` if n > 1."""

    method: str
    setting: str
    run: RunSpec | None = None
    snapshot: int = 0
    """Which of the run's, in order of steps."""
    n: int = 1

    @property
    def name(self) -> str:
        """For tables and figures."""
        return f"{self.method} {self.setting}".strip()


@dataclass(frozen=True)
class Answers:
    """An answerer at a temperature on some prompts, and where the answers come from."""

    answerer: Answerer
    temperature: float
    prompts: RunSpec
    run: RunSpec
    scores: RunSpec | None = None
    """Learned rewards of the samples that Best-of-N chooses from."""

    @property
    def needs(self) -> list[RunSpec]:
        """The runs that must be done before anything can be read."""
        return [self.run] if self.scores is None else [self.run, self.scores]


def resolve_reward(name: str) -> tuple[str, str]:
    """Where a gold reward is, and what identifies it: a model's contents, or the source of a function's module.

    Raises:
        UserError: There is no such model or module.
    """
    if not is_function(name):
        return resolve_model(name)
    open_reward(name)
    module = name.partition(":")[0]
    beside = Path(sys.modules[module].__file__ or "").parent.glob("*")  # what it may import without being a package
    return name, f"{name}@{code_hash([module], roots=[path.stem for path in beside])}"


class AnswerRuns:
    """The specification of each run of a study."""

    def __init__(self, study: AnswerStudy) -> None:
        self.study, self.task = study, load_task(study.task)
        model, digest = resolve_model(study.model)
        self.gold: dict[str, str] = {}
        self.where = {"reference": model, "gold_reward": None, "device": study.device}
        if study.gold_reward:
            self.where["gold_reward"], self.gold["gold_reward"] = resolve_reward(study.gold_reward)
        self.origin = {"reference": digest}
        self.methods_texts = self.texts(study.task, study.pairs, study.part, study.train_pairs, tests=study.answers)
        sft_texts = self.methods_texts
        if study.answers and study.sft:
            sft_texts = self.texts(study.task, study.answers, study.part, study.train_pairs)
        self.sft = self._sft(study.sft, sft_texts) if study.sft else None
        self.base = {"sft": self.sft} if self.sft else {}
        self.pairs = self._pairs()

    def spec(
        self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], title: str, cost: float, *modules: str,
        **where: Any,
    ) -> RunSpec:  # fmt: skip
        drawn = {} if stage == "texts" else {"sampler_dtype": self.study.sampler_dtype}
        whole = {**self.origin, **drawn, "seed": self.study.seed, **config}
        return RunSpec(stage, whole, inputs, STAGES[stage].code(modules), {**self.where, **where}, title, cost)

    def texts(self, task: str, source: str, part: Part, size: int, *, tests: str | None = None) -> RunSpec:
        """One part of a data set; prompts of the test split of `tests` are kept out.

        Raises:
            UserError: A local path does not exist.
        """
        study = self.study
        for given in (part.strip() for name in (source, tests or "") for part in name.split(",")):
            is_local = given.startswith((".", "/", "~")) or Path(given).suffix in {*LOADERS, ".gz"}
            if is_local and not Path(given).expanduser().exists():
                raise UserError(f"{task}: {given} does not exist")
        config = {
            "task": task, "source": data_digest(source), "part": part, "size": size, "rows": study.rows,
            "max_prompt_tokens": study.max_prompt_tokens, "max_new_tokens": study.max_new_tokens,
            "single_turn": study.single_turn, "tests": data_digest(tests),
        }  # fmt: skip
        where = {"source": source, "tests": tests}
        return self.spec("texts", config, {}, f"{task}, {part}", 1.0 * size, f"suite.data.tasks.{task}", **where)

    def test_prompts(self) -> RunSpec:
        """The task's own."""
        study = self.study
        return self.texts(study.task, study.answers or study.pairs, "test", study.test_prompts)

    def _sft(self, optim: OptimConfig, texts: RunSpec) -> RunSpec:
        config = {"config": {"optim": asdict(optim)}}
        return self.spec("sft_on_answers", config, {"texts": texts}, "SFT", 3 * self._tokens(texts.config["size"], optim))

    def _tokens(self, texts: int, optim: OptimConfig) -> float:
        return 1.0 * texts * optim.num_epochs * (self.study.max_prompt_tokens + self.study.max_new_tokens)

    def _pairs(self) -> RunSpec:
        inputs = {**self.base, "texts": self.methods_texts}
        cost = 2 * self._tokens(self.study.train_pairs, replace(self.study.optim, num_epochs=1))
        config = {"precision": self.study.optim.precision}
        return self.spec("reference_log_probs", config, inputs, "log π_ref of the pairs", cost)

    def reward_model(self, *, judge: bool) -> RunSpec:
        """The learned reward of the methods, from their half of the pairs; or the judge's, from the other half."""
        study = self.study
        texts, size = self.methods_texts, study.train_pairs
        if judge:
            size = study.judge_pairs
            texts = self.texts(study.task, study.pairs, "judge", size, tests=study.answers)
        config = {"config": asdict(RewardModelConfig(optim=study.reward_model))}
        title = "judge's reward model" if judge else "reward model"
        inputs = {**self.base, "prompts": texts, "pairs": texts}
        return self.spec("reward_model", config, inputs, title, 6 * self._tokens(size, study.reward_model))

    def method(self, name: str) -> Any:
        """A method by name.

        Raises:
            UserError: It needs what human preferences do not give.
        """
        method = load_method(name)
        if absent := method.needs & {"gold_reward", "rankings", "texts"} - self.gold.keys():
            raise UserError(f"method {name!r} needs {', '.join(sorted(absent))}; there are only preference pairs here")
        return method

    def train(self, name: str, setting: Mapping[str, Any], seed: int) -> Answerer:
        """The last policy of a run; a method that trains nothing is given the model before fine-tuning."""
        study, method, target = self.study, self.method(name), resolve(name)
        config = method_config(method, name, setting, study)
        label = ", ".join(f"{key} = {value}" for key, value in setting.items())
        modules = [target.partition(":")[0]]
        whole = {"method": target, "config": config, "seed": seed, "max_new_tokens": study.max_new_tokens}
        title = f"{method.name} {label}".strip() + f" seed {seed}"
        if not getattr(method, "trained", True):
            base, digest = resolve_model(study.base or study.model)
            run = self.spec(
                "prompting", {**whole, "reference": digest}, {"texts": self.methods_texts}, title, 1.0, *modules, reference=base
            )
            return Answerer(method.name, label, run)
        whole |= {
            "num_snapshots": study.optim.num_snapshots, "precision": study.optim.precision, "lora_rank": study.lora_rank,
        }  # fmt: skip
        inputs = {**self.base, "prompts": self.methods_texts, "pairs": self.pairs}
        cost = 6 * self._tokens(study.train_pairs, study.optim)
        if "samples_per_step" in config:
            samples = config["num_steps"] * config["samples_per_step"]
            cost = 3.0 * (1 + config["epochs_per_step"]) * samples * (study.max_prompt_tokens + study.max_new_tokens)
        if "reward" in method.needs:
            inputs["reward_model"] = self.reward_model(judge=False)
            modules += ["suite.rewards.reward_model"]
        whole |= versions_of(method)
        if "gold_reward" in method.needs:
            whole |= self.gold
            modules += REWARDS
        return Answerer(
            method.name, label, self.spec("train", whole, inputs, title, cost, *modules), study.optim.num_snapshots - 1
        )

    def answers(self, answerer: Answerer, temperature: float, prompts: RunSpec, *, samples: int | None = None) -> Answers:
        """One pass of sampling, shared by all who ask for the same; Best-of-n reads the first n of `samples` (default n)."""
        study, count = self.study, samples or answerer.n
        config = {
            "temperature": temperature, "num_samples": count, "max_new_tokens": study.max_new_tokens,
            "snapshot": answerer.snapshot if answerer.run else None,
        }  # fmt: skip
        inputs = {**self.base, "prompts": prompts} | ({"policy": answerer.run} if answerer.run else {})
        cost = 3.0 * prompts.config["size"] * count * (study.max_new_tokens + study.max_prompt_tokens)
        modules = [answerer.run.config["method"].partition(":")[0]] if answerer.run else []
        drawn_by = "reference" if answerer.n > 1 else answerer.name
        if answerer.run and answerer.run.stage == "train":
            drawn_by += f", snapshot {answerer.snapshot + 1}"
        title = f"{drawn_by}, temperature {temperature:g}, {count} × {prompts.title}"
        run = self.spec("answers", config, inputs, title, cost, *modules)
        if answerer.n == 1:
            return Answers(answerer, temperature, prompts, run)
        config = {"precision": study.sampler_dtype, "num_samples": count}  # type: ignore[dict-item]
        inputs = {"prompts": prompts, "completions": run, "reward_model": self.reward_model(judge=False)}
        return Answers(answerer, temperature, prompts, run, self.spec("scores", config, inputs, f"scores of {title}", cost / 2))

    @property
    def reference(self) -> Answerer:
        """π_ref: fine-tuned on the chosen replies of dialogues, or on summaries."""
        on_chosen = self.study.task in ("hh_dialogue", "own_data") and self.study.sft
        return Answerer("Preferred-FT" if on_chosen else "SFT", "(reference)")

    @property
    def invented(self) -> bool:
        return INVENTED in (self.study.pairs, self.study.answers)
