"""A frontier study: its settings, and the runs they mean."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from suite.data.labelling import Labels
from suite.errors import UserError
from suite.registry import load_method, resolve
from suite.runs.run_store import RunSpec
from suite.runs.stages import PROVIDED, STAGES
from suite.training.loop import OptimConfig

ASSETS = Path(__file__).parent.parent / "assets"
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
PROMPTS_PER_SHARD = 256
POOL_PROMPTS_PER_SHARD = 32

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
    learning_rates: Mapping[str, float]
    """Per method, as chosen on validation prompts by a search of equal size for all; any other keeps its Config's own."""
    reviews: str | None = None
    """Real reviews for the prefixes; None draws them from the reference."""
    sft: SupervisedSettings | None = None
    completions_per_prompt: int = 4
    labels: Labels = "hard"
    bradley_terry_scale: float = 5.0
    """Scale of `bradley_terry` labels, per unit of reward."""
    samples_per_prompt: int = 1
    """Completions per evaluation prompt and snapshot."""
    pool_size: int = 128
    """Reference samples per test prompt, shared by every N of Best-of-N."""
    sampler_dtype: Precision = "float32"
    """Arithmetic in which prompts, preference completions and the pool are drawn; evaluation draws in float32."""
    seed: int = 0
    """Of prompts, completions and evaluation; training seeds are the sweep's."""
    device: str = "cpu"


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
class Plan:
    """Every run of a study."""

    study: Study
    trained: list[TrainedRun]
    reference_evaluation: RunSpec
    pairs: RunSpec
    pool: list[RunSpec]
    pool_settings: list[tuple[str, str, Mapping[str, Any]]]
    """(method, label, config) of the methods that only select from the pool."""

    def without(self, failed: set[str]) -> Plan:
        """The plan less the trained runs of which a part failed (by key)."""
        whole = [r for r in self.trained if failed.isdisjoint(spec.key for spec in (r.train, *r.evaluations))]
        return replace(self, trained=whole)

    @property
    def targets(self) -> list[RunSpec]:
        return [
            self.reference_evaluation, self.pairs, *(run.train for run in self.trained), *self.pool,
            *(evaluation for run in self.trained for evaluation in run.evaluations),
        ]  # fmt: skip


@dataclass
class _Builder:
    """Fills in what every specification of one study shares."""

    study: Study
    where: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("reference", "gold_reward"):
            self.where[name], self.digests[name] = resolve_model(getattr(self.study, name))
        self.where["device"] = self.study.device
        self.where["reviews"] = self.study.reviews

    def spec(self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], **more: Any) -> RunSpec:
        code = STAGES[stage].code(more.pop("modules", ()))
        return RunSpec(stage, config, inputs, code, self.where, **more)


def plan_study(
    study: Study, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int], *, test: bool = True
) -> Plan:
    """The runs of `study` over `grid` (method → settings) and training `seeds`.

    Args:
        study: Models, data, sizes.
        grid: Method name or "module:Class" → settings that replace fields of the method's Config.
        seeds: Training seeds; methods that do not train ignore them.
        test: Also evaluate on test prompts and draw the pool; the learning-rate search must not.

    Raises:
        UserError: Unknown method, setting or model.
    """
    build = _Builder(study)
    origin = {"reference": build.digests["reference"], "seed": study.seed}
    drawn = {**origin, "sampler_dtype": study.sampler_dtype}
    shared = {**drawn, "gold_reward": build.digests["gold_reward"]}
    sft_texts = study.sft.texts if study.sft else 0
    base: dict[str, RunSpec] = {}
    if study.sft:
        sft_config = {"config": {"optim": asdict(study.sft.optim)}, "texts": sft_texts, "max_tokens": study.sft.max_tokens}
        sft_config |= {"reviews": data_digest(study.reviews)}
        base["sft"] = build.spec("sft", {**origin, **sft_config}, {}, title="SFT", cost=sft_texts * study.sft.max_tokens)

    def prompts(split: str, size: int) -> RunSpec:
        config = {"split": split, "size": size, "reviews": data_digest(study.reviews), "sft_texts": sft_texts}
        share = {"train": 1.1, "validation": 33, "test": 14}[split]
        return build.spec("prompts", {**drawn, **config}, base, title=f"{split} prompts", cost=8.0 * share * size)

    def completions(of: RunSpec, first: int, last: int, num_samples: int, title: str, **config: Any) -> RunSpec:
        config |= {"prompts": [first, last], "num_samples": num_samples, "max_new_tokens": study.max_new_tokens}
        cost = 2.0 * (last - first) * num_samples * study.max_new_tokens
        title = f"{title} {first}–{last - 1}"
        return build.spec("completions", {**shared, **config}, {**base, "prompts": of}, title=title, cost=cost)

    train_prompts = prompts("train", study.train_prompts)
    evaluation_prompts = {"validation": prompts("validation", study.validation_prompts)}
    if test:
        evaluation_prompts["test"] = prompts("test", study.test_prompts)
    shards = [
        completions(
            train_prompts, *span, study.completions_per_prompt, "completions", reference_log_probs=study.optim.precision
        )
        for span in spans(study.train_prompts, PROMPTS_PER_SHARD)
    ]
    labelling = {"labels": study.labels, "scale": study.bradley_terry_scale, "seed": study.seed}
    pairs = build.spec("pairs", labelling, {f"completions-{i:03d}": s for i, s in enumerate(shards)}, title="pairs")
    evaluation = {**origin, "gold_reward": build.digests["gold_reward"], "num_samples": study.samples_per_prompt}
    evaluation |= {"max_new_tokens": study.max_new_tokens}
    evaluated = (study.validation_prompts + study.test_prompts * test) * study.samples_per_prompt
    evaluation_cost = 4.0 * evaluated * study.max_new_tokens
    num_pairs = study.train_prompts * study.completions_per_prompt * (study.completions_per_prompt - 1) // 2
    training_cost = 8.0 * study.optim.num_epochs * num_pairs * study.max_new_tokens

    trained: list[TrainedRun] = []
    pool_settings: list[tuple[str, str, Mapping[str, Any]]] = []
    for name, settings in grid.items():
        method = load_method(name)
        if absent := (set() if method.evaluated_from_pool else method.needs - PROVIDED):
            raise UserError(f"method {name!r} needs {', '.join(sorted(absent))}, which this study does not provide")
        for setting in settings:
            config = method_config(method, name, setting, study)
            label = ", ".join(f"{key} = {value}" for key, value in setting.items())
            if method.evaluated_from_pool:
                pool_settings.append((method.name, label or f"n = {config['n']}", config))
                continue
            for seed in seeds:
                title = f"{method.name} {label}".strip() + f" seed {seed}"
                train_config = {
                    **shared, "method": resolve(name), "config": config, "seed": seed,
                    "num_snapshots": study.optim.num_snapshots, "precision": study.optim.precision,
                }  # fmt: skip
                train = build.spec(
                    "train", train_config, {**base, "prompts": train_prompts, "pairs": pairs}, title=title, cost=training_cost,
                    modules=(resolve(name).partition(":")[0],),
                )  # fmt: skip
                evaluations = [
                    build.spec(
                        "evaluation", {**evaluation, "snapshot": k}, {**base, **evaluation_prompts, "policy": train},
                        title=f"{title}, snapshot {k + 1}", cost=evaluation_cost,
                    )
                    for k in range(study.optim.num_snapshots)
                ]  # fmt: skip
                trained.append(TrainedRun(method.name, label, setting, seed, train, evaluations))
    pool = [
        completions(evaluation_prompts["test"], *span, study.pool_size, "pool")
        for span in spans(study.test_prompts if test else 0, POOL_PROMPTS_PER_SHARD)
    ]
    inputs = {**base, **evaluation_prompts}
    reference = build.spec("evaluation", {**evaluation, "snapshot": None}, inputs, title="reference", cost=evaluation_cost)
    return Plan(study, trained, reference, pairs, pool, pool_settings)


def method_config(method: Any, name: str, setting: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """The method's whole Config as JSON: its defaults, the study's optimizer settings, `setting` on top.

    The learning rate is the searched one; a method that was not searched keeps its own default.

    Raises:
        UserError: `setting` names a field that the method does not have.
    """
    fields = method.Config.__dataclass_fields__
    for key in setting:
        if key not in fields:
            raise UserError(f"method {name!r} has no setting {key!r}; it has {', '.join(fields)}")
    config = method.Config(**setting)
    if "optim" in fields:
        searched = {resolve(known): rate for known, rate in study.learning_rates.items()}
        lr = searched.get(resolve(name), config.optim.lr)
        config = replace(config, optim=replace(study.optim, lr=lr))
    return asdict(config)


def spans(total: int, size: int) -> list[tuple[int, int]]:
    """Consecutive [first, last) of at most `size`."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]


def resolve_model(name: str) -> tuple[str, str]:
    """Local folder and content digest of a model given as a folder or a Hub name.

    Raises:
        UserError: Neither a folder nor reachable on the Hub; says how to get it offline.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve()), data_digest(name, MODEL_FILES) or ""
    if name.startswith((".", "/", "~")):
        raise UserError(f"model folder {name!r} does not exist")
    from huggingface_hub import snapshot_download

    for offline in (True, False):
        try:
            path = snapshot_download(name, allow_patterns=list(MODEL_FILES), local_files_only=offline)
            return path, f"{name}@{Path(path).name}"
        except Exception as error:  # the client raises many kinds: no network, unknown repository, bad name
            reason = type(error).__name__
    raise UserError(
        f"model {name!r} is neither a folder here nor could it be fetched from the Hub ({reason}). Offline? Where there is "
        f"a network, run: hf download {name} --local-dir {name.rpartition('/')[2]}; copy the folder here and pass its path"
    )


def data_digest(source: str | None, patterns: Sequence[str] = ("*",)) -> str | None:
    """Hash of the contents of a local file or folder; a Hub name stands for itself; None stays None."""
    if source is None or not Path(source).expanduser().exists():
        return source
    path, digest = Path(source).expanduser(), hashlib.sha256()
    files = [path] if path.is_file() else sorted({f for p in patterns for f in path.rglob(p) if f.is_file()})
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
