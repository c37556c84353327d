"""Which runs a study means: contenders, what is sampled and measured of them, and all they need."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from suite.common.errors import UserError
from suite.common.registry import describe
from suite.engine.making import closure
from suite.engine.store import RunSpec
from suite.interfaces import Contender, Evaluator, Point, Task
from suite.study.specs import Shard, Source, Specs, label_of
from suite.study.study import Study

Grid = Mapping[str, Sequence[Mapping[str, Any]]]
"""Method name or "module:Class" → settings that replace fields of the method's Config."""
REFERENCE = "SFT (reference)"
"""π_ref in the tables of a frontier."""


@dataclass(frozen=True)
class PlannedPoint:
    """A point of a contender with the runs behind it."""

    contender: Contender
    point: Point
    samples: RunSpec | None  # None: the shared pool of reference samples
    policy: RunSpec | None = None  # the run whose snapshot is sampled; None: the reference
    scores: RunSpec | None = None  # learned rewards of the samples, by which Best-of-N chooses
    measured: RunSpec | None = None  # the run that measures; None: the study's own process does

    @property
    def needs(self) -> list[RunSpec]:
        """The runs that must be done before it can be read."""
        return [spec for spec in (self.samples, self.scores, self.measured) if spec is not None]

    @property
    def name(self) -> str:
        """For tables of verdicts and files of answers."""
        during = f", {self.point.x:g} of training" if self.point.panel == "training" else ""
        return f"{self.contender.label}, T = {self.point.temperature:g}{during}"


@dataclass(frozen=True)
class Plan:
    """Every run of a study."""

    study: Study
    task: Task
    evaluator: Evaluator
    policies: dict[Contender, RunSpec]  # trained, or prompted
    points: list[PlannedPoint]
    sources: dict[int, Source]  # training seed → what its methods learn from
    prompts: dict[str, RunSpec]  # split → the prompts that are measured on
    pool: list[Shard] = field(default_factory=list)
    opponent: PlannedPoint | None = None  # whose answers all others are judged against; None: the reference answers
    judge_model: RunSpec | None = None  # the judge's own reward model, if it has one

    @property
    def source(self) -> Source:
        """What the first training seed learns from."""
        return next(iter(self.sources.values()))

    @property
    def pool_scores(self) -> dict[int, list[RunSpec]]:
        """Learned rewards of the pool by training seed, of those seeds where a contender selects by them."""
        seeds = dict.fromkeys(p.contender.seed for p in self.points if p.samples is None and p.contender.learned)
        return {seed: [shard.learned[seed] for shard in self.pool] for seed in seeds}

    @property
    def targets(self) -> list[RunSpec]:
        """What must be made, without what that needs."""
        points = [*self.points, *([self.opponent] if self.opponent else [])]
        pool = [spec for shard in self.pool for spec in (shard.samples, shard.gold)]
        return [
            *(source.pairs for source in self.sources.values()), *self.policies.values(), *pool,
            *(spec for scores in self.pool_scores.values() for spec in scores), *(spec for p in points for spec in p.needs),
            *([self.judge_model] if self.judge_model else []),
        ]  # fmt: skip

    @property
    def trained(self) -> dict[Contender, RunSpec]:
        """The policies that were trained: they have metrics and costs."""
        return {contender: spec for contender, spec in self.policies.items() if "precision" in spec.config}

    def without(self, failed: set[str]) -> Plan:
        """The plan less every contender of which a part failed (by key). Raises UserError if nothing is left to measure."""

        def lost(targets: Sequence[RunSpec]) -> bool:
            return not failed.isdisjoint(spec.key for spec in closure(targets))

        unscored = {seed for seed, scores in self.pool_scores.items() if lost(scores)}
        bad = {contender for contender, spec in self.policies.items() if lost([spec])}
        bad |= {p.contender for p in self.points if lost(p.needs) or _selects(p.contender, p, unscored)}
        policies = {contender: spec for contender, spec in self.policies.items() if contender not in bad}
        left = replace(self, policies=policies, points=[p for p in self.points if p.contender not in bad])
        if not left.points or lost(left.targets):
            raise UserError("what everything needs has failed: nothing can be measured; see error.log of the runs named above")
        return left


def plan_study(
    study: Study, grid: Grid, evaluator: Evaluator, *, seeds: Sequence[int] = (0,), reference: Contender | None = None,
    other_task: tuple[str, str] | None = None, opponent: tuple[str, float] | None = None, judge_model: str = "",
) -> Plan:  # fmt: skip
    """The runs of `study` over `grid` and training `seeds` (which methods that do not train ignore), measured by `evaluator`.

    Args:
        study, grid, evaluator: Models, data and sizes; see `Grid`; what is sampled and measured of each contender.
        seeds: Training seeds.
        reference: How the reference is called; None: it is no contender, only Best-of-N of the grid are.
        other_task: (task, data) whose test prompts are answered instead of the study's.
        opponent: (method of the grid, temperature) whose answers all others are judged against.
        judge_model: "own": a reward model for the judge is fitted to its half; "learned": the methods' reward model judges.

    Raises:
        UserError: Unknown method, setting, model or task; a method that needs what the study does not provide; two of one name.
    """
    make = Specs(study)
    prompts = make.held_out(getattr(evaluator, "splits", ("test",)))
    if other_task:
        task, source = other_task
        prompts = {"test": make.split("test", study.test_prompts, task=task, source=source)}
    policies: dict[Contender, RunSpec] = {}
    contenders = [reference] if reference else []
    names = {reference.label: "the reference"} if reference else {}
    for name, settings in grid.items():
        info = describe(name)
        if info.name in names:
            raise UserError(f"{name}: its name {info.name!r} is that of {names[info.name]} too; give it a name of its own")
        names[info.name] = name
        make.check_needs(name, info)
        if not (info.trained or info.evaluated_from_pool) and "next_token_log_probs" in evaluator.needs:
            raise UserError(f"method {name!r} trains nothing; a frontier compares trained policies and Best-of-N")
        for setting in settings:
            if info.evaluated_from_pool:
                n, learned = setting.get("n", info.method.Config().n), "reward" in info.needs
                label = label_of(setting) or f"n = {n}"
                contenders += [Contender(info.name, label, seed, n=n, learned=learned) for seed in seeds]
                continue
            for seed in seeds if info.trained else seeds[:1]:
                contender, spec = make.policy(name, setting, seed)
                policies[contender] = spec
                contenders.append(contender)
    points = [
        _planned(make, evaluator, contender, point, policies.get(contender), prompts)
        for contender in contenders
        for point in evaluator.points(contender)
    ]
    against = _opponent(opponent, make, evaluator, policies, prompts) if opponent else None
    if against:
        points = [p for p in points if p.samples is None or p.samples.key != (against.samples and against.samples.key)]
    sources = {seed: make.source(seed) for seed in seeds}
    judges = {"own": make.judge_model, "learned": lambda seed: sources[seed].reward_model}
    return Plan(
        study, make.task, evaluator, policies, points, sources, prompts, opponent=against,
        pool=make.pool(prompts["test"], seeds) if getattr(evaluator, "pool", False) and "test" in prompts else [],
        judge_model=judges[judge_model](seeds[0]) if judge_model else None,
    )  # fmt: skip


def _selects(contender: Contender, planned: PlannedPoint, seeds: Container[int]) -> bool:
    """Whether a contender keeps the best of the pool by the reward that one of `seeds` learned."""
    return planned.samples is None and contender.learned and contender.seed in seeds


def _planned(
    make: Specs, evaluator: Evaluator, contender: Contender, point: Point, policy: RunSpec | None,
    prompts: Mapping[str, RunSpec],
) -> PlannedPoint:  # fmt: skip
    if not point.samples:
        return PlannedPoint(contender, point, None)
    if point.snapshot is None:
        policy = None
    asked: dict[str, RunSpec] = {split: prompts[split] for split in point.splits}
    judged = "judge" in evaluator.needs
    title = policy.title if policy else "reference"
    if policy and contender.snapshots > 1:
        title += f", snapshot {(point.snapshot or 0) + 1}"
    if judged or point.temperature != 1:
        title += f", temperature {point.temperature:g}" + (f", {point.samples} each" if point.samples > 1 else "")
    dtype = make.study.sampler_dtype if judged else "float32"
    log_probs = dtype if judged else None
    samples = make.samples(title, point.samples, asked, policy=policy, point=point, log_probs=log_probs, dtype=dtype)
    scores = None
    if contender.n > 1 or (point.panel == "best_of_n" and point.samples > 1):
        scores = make.scores(samples, asked["test"], point.samples, learned_by=contender.seed)
    measured = None if judged else make.measurements(evaluator, samples, point, policy, **asked)
    return PlannedPoint(contender, point, samples, policy, scores, measured)


def _opponent(
    wanted: tuple[str, float], make: Specs, evaluator: Evaluator, policies: Mapping[Contender, RunSpec],
    prompts: Mapping[str, RunSpec],
) -> PlannedPoint:  # fmt: skip
    method, temperature = describe(wanted[0]).name, wanted[1]
    for contender, policy in policies.items():
        if contender.method == method:
            point = Point("temperature", temperature, temperature, contender.snapshots - 1)
            return _planned(make, evaluator, contender, point, policy, prompts)
    raise UserError(f"--opponent {wanted[0]!r}: expected one of --methods and a temperature, for example ppo@0")
