"""Planned studies as a file in the folder of runs: what `suite watch` needs to know of a sweep that another process makes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from suite.common.errors import UserError, first_line
from suite.common.registry import load
from suite.engine.making import closure
from suite.engine.plan_file import enter_more, write_plan
from suite.engine.store import RunSpec
from suite.interfaces import Contender, Point
from suite.study.plan import Plan, PlannedPoint
from suite.study.specs import Shard, Source
from suite.study.study import Study

STUDIES = "studies"
Keys = Mapping[str, RunSpec]


def write_studies(root: Path, plans: Mapping[str, Plan], **about: Any) -> Path:
    """Write what a script makes (name → plan) into a file of `<root>/studies`, with what is to be said of it; the same runs are
    the same file.
    """
    planned = {name: _planned(plan) for name, plan in plans.items()}
    needed = [spec for plan in plans.values() for spec in (*plan.targets, *_beside(plan))]
    return write_plan(root, needed, folder=STUDIES, more={"planned": planned, "about": about})


def _planned(plan: Plan) -> dict[str, Any]:
    evaluator = type(plan.evaluator)
    return {
        "study": asdict(plan.study), "evaluator": [f"{evaluator.__module__}:{evaluator.__qualname__}", vars(plan.evaluator)],
        "policies": [[asdict(contender), spec.key] for contender, spec in plan.policies.items()],
        "points": [_as_json(point) for point in plan.points],
        "sources": [
            [seed, source.prompts.key, source.pairs.key, source.reward_model.key, {n: s.key for n, s in source.fitted.items()}]
            for seed, source in plan.sources.items()
        ],
        "prompts": {split: spec.key for split, spec in plan.prompts.items()},
        "pool": [[s.samples.key, s.gold.key, [[seed, spec.key] for seed, spec in s.learned.items()]] for s in plan.pool],
        "opponent": _as_json(plan.opponent) if plan.opponent else None,
        "judge_model": plan.judge_model.key if plan.judge_model else None,
    }  # fmt: skip


def _beside(plan: Plan) -> list[RunSpec]:
    """What a plan names beside its targets."""
    needed = [
        spec for source in plan.sources.values() for spec in (source.prompts, source.reward_model, *source.fitted.values())
    ]
    return needed + [spec for shard in plan.pool for spec in shard.learned.values()] + list(plan.prompts.values())


def enter_studies(path: Path) -> tuple[Path, dict[str, Plan], dict[str, Any]]:
    """The folder of runs, the plans that `write_studies` wrote, and what was to be said of them; see `suite.engine.plan_file`.

    Raises:
        UserError: There is no such file, it is of another version, or the code here is not that which planned it.
    """
    root, targets, found = enter_more(path)
    if "planned" not in found:
        raise UserError(f"{path}: holds runs and no study; give a file of {root / STUDIES}, or {root}")
    try:
        return root, {name: _plan_of(planned, targets) for name, planned in found["planned"].items()}, found["about"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: is of another version or damaged ({first_line(error)}); start its script again") from error


def _plan_of(planned: Mapping[str, Any], targets: Sequence[RunSpec]) -> Plan:
    keys = {spec.key: spec for spec in closure(targets)}
    study = TypeAdapter(Study).validate_python(planned["study"])
    name, fields = planned["evaluator"]
    evaluator = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
    contenders = TypeAdapter(Contender)
    return Plan(
        study, load(study.task, "task"), load(name, "evaluator")(**evaluator),
        policies={contenders.validate_python(contender): keys[key] for contender, key in planned["policies"]},
        points=[_from_json(point, keys) for point in planned["points"]],
        sources={
            seed: Source(keys[prompts], keys[pairs], keys[model], {n: keys[key] for n, key in fitted.items()})
            for seed, prompts, pairs, model, fitted in planned["sources"]
        },
        prompts={split: keys[key] for split, key in planned["prompts"].items()},
        pool=[Shard(keys[s], keys[gold], {seed: keys[key] for seed, key in learned}) for s, gold, learned in planned["pool"]],
        opponent=_from_json(planned["opponent"], keys) if planned["opponent"] else None,
        judge_model=keys[planned["judge_model"]] if planned["judge_model"] else None,
    )  # fmt: skip


def made_so_far(plan: Plan, missing: set[str]) -> Plan:
    """What can be measured without the runs that are `missing`, by key. Raises UserError if that is nothing."""

    def lost(targets: Sequence[RunSpec]) -> bool:
        return not missing.isdisjoint(spec.key for spec in closure(targets))

    sources = {seed: source for seed, source in plan.sources.items() if not lost([source.pairs])}
    left = replace(plan, sources=sources or plan.sources)
    if lost([spec for shard in plan.pool for spec in (shard.samples, shard.gold)]):
        left = replace(left, pool=[], points=[point for point in left.points if point.samples is not None])
    return left.without(missing)


def _as_json(planned: PlannedPoint) -> list[Any]:
    runs = (planned.samples, planned.policy, planned.scores, planned.measured)
    return [asdict(planned.contender), asdict(planned.point), *(spec.key if spec else None for spec in runs)]


def _from_json(row: Sequence[Any], keys: Keys) -> PlannedPoint:
    contender, point, *runs = row
    return PlannedPoint(
        TypeAdapter(Contender).validate_python(contender), TypeAdapter(Point).validate_python(point),
        *(keys[key] if key else None for key in runs),
    )  # fmt: skip
