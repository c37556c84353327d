"""Baselines from the records of an earlier study: what was measured before, where it is exactly what would be measured now."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.records import POINT, Results, on_hull, read_results
from suite.common.errors import UserError
from suite.engine.making import closure
from suite.engine.store import RunSpec
from suite.study.plan import REFERENCE, Plan, PlannedPoint
from suite.study.study import Study

RUN = POINT[:3]
OPTIMS = ("optim", "reward_model")
"""Of a study: their arithmetic is chosen by the machine."""
RECORDED: dict[str, Any] = {"drawn": dict, "precision": dict, "runs": dict}
ABOUT_A_RUN = {"stage", "title", "code", "config", "inputs"}
"""Of `runs.json`: what it holds, and what it says of every run."""
JOINED: dict[str, Any] = {
    "seeds": list, "trained_runs": int, "worker_minutes": (int, float), "sampler_kl": (int, float), "unsearched": list,
    "targets": list,
}  # fmt: skip
"""Of `study.json`: what is joined to that of a new study."""


def recorded_runs(root: Path, plan: Plan) -> dict[str, Any]:
    """`runs.json`: the specification of every run behind the records, the arithmetic, and digests of what was drawn, so that
    others can tell whether their runs are comparable.
    """
    runs = {
        spec.key[:16]: {
            "stage": spec.stage, "title": spec.title, "code": spec.code, "config": spec.config,
            "inputs": {name: needed.key[:16] for name, needed in spec.inputs.items()},
        }
        for spec in closure(plan.targets)
    }  # fmt: skip
    precision = {name: getattr(plan.study, name).precision for name in OPTIMS}
    precision["sampler_dtype"] = plan.study.sampler_dtype
    return {"drawn": drawn_digests(root, plan), "precision": precision, "runs": runs}


def read_reusable(folder: Path) -> Results:
    """The results of a folder that can be reused. Raises UserError if it is of an older version, or of no finished study."""
    try:
        results = read_results(folder)
    except UserError as error:
        raise UserError(f"--reuse-records: {error}") from error
    for file, found, needed in (("runs.json", results.runs, RECORDED), ("study.json", results.about, JOINED)):
        for name, kind in needed.items():
            if not isinstance(found.get(name), kind):
                raise UserError(f"--reuse-records {folder}: {file} has no {name}; make these results again")
    names = {"drawn": ("validation", "test"), "precision": (*OPTIMS, "sampler_dtype")}
    absent = [f"{part}/{name}" for part, needed in names.items() for name in needed if name not in results.runs[part]]
    absent += [key for key, run in results.runs["runs"].items() if not isinstance(run, dict) or not set(run) >= ABOUT_A_RUN]
    if absent:
        raise UserError(f"--reuse-records {folder}: runs.json does not say all of {absent[0]}; make these results again")
    return results


def in_recorded_precision(study: Study, recorded: Results) -> Study:
    """`study` in the arithmetic of the records, whatever suits this machine."""
    used = recorded.runs["precision"]
    optims = {name: replace(getattr(study, name), precision=used[name]) for name in OPTIMS}
    return replace(study, sampler_dtype=used["sampler_dtype"], **optims)


def drawn_digests(root: Path, plan: Plan) -> dict[str, str]:
    """Hashes of what is sampled and may therefore differ between machines of one key: evaluation prompts, training pairs."""
    digests = {}
    for seed, source in plan.sources.items():
        path = source.pairs.directory(root) / "pairs.parquet"
        pairs = pd.read_parquet(path, columns=["prompt_id", "chosen_ids", "rejected_ids"])
        rows = [[row[0], list(map(int, row[1])), list(map(int, row[2]))] for row in pairs.to_numpy()]
        digests[f"pairs-{seed}"] = _digest(rows)
    for split, spec in plan.prompts.items():
        frame = pd.read_parquet(spec.directory(root) / "prompts.parquet")
        digests[split] = _digest([[row.prompt_id, list(map(int, row.prompt_ids))] for row in frame.itertuples()])
    return digests


def _digest(rows: list[Any]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def reusable(folder: Path, recorded: Results, plan: Plan) -> Results:
    """The results that `folder` holds of `plan`'s methods, if they are of the very runs that `plan` would make now.
    Raises UserError if a run differs, and names the first difference.
    """
    runs: dict[str, Any] = recorded.runs["runs"]
    pool = [spec for shard in plan.pool for spec in (shard.samples, shard.gold)]
    scores = [spec for of_seed in plan.pool_scores.values() for spec in of_seed]
    for spec in (*(s for p in plan.points for s in p.needs), *pool, *scores):
        if spec.key[:16] not in runs:
            reason = next(differences(spec, runs), "it was made by other settings or code")
            raise UserError(
                f"--reuse-records {folder}: cannot be compared: {reason}. Leave the option out to run the baselines here"
            )
    wanted = {(REFERENCE, "", 0)} | {(p.contender.method, p.contender.setting, p.contender.seed) for p in plan.points}
    tables = {name: getattr(recorded, name) for name in ("measurements", "records", "training", "health")}
    kept = {name: table[pd.MultiIndex.from_frame(table[RUN]).isin(wanted)] for name, table in tables.items()}
    return replace(recorded, **kept)


def split(plan: Plan, recorded: Results) -> tuple[Plan | None, Results]:
    """What is left of a plan to be made, None if that is nothing, and what the records hold of it: the numbers of contenders
    whose every run is, by its key, one of those behind the records. So a study grows one seed at a time.

    The reference stays in what is left, to be looked at beside the others; of what both have, the records count.
    """
    runs = recorded.runs["runs"]
    rows = pd.MultiIndex.from_frame(recorded.records[RUN]).unique()

    def known(specs: Iterable[RunSpec]) -> bool:
        return all(spec.key[:16] in runs for spec in specs)

    pool = known(spec for shard in plan.pool for spec in (shard.samples, shard.gold))
    scored = {seed: pool and known(scores) for seed, scores in plan.pool_scores.items()}

    def is_recorded(planned: PlannedPoint) -> bool:
        contender = planned.contender
        if (contender.method, contender.setting, contender.seed) not in rows:
            return False
        of_pool = scored[contender.seed] if contender.learned else pool
        return of_pool if planned.samples is None else known(planned.needs)

    absent = {planned.contender for planned in plan.points if not is_recorded(planned)}
    names = {(p.contender.method, p.contender.setting, p.contender.seed) for p in plan.points if p.contender not in absent}
    tables = {name: getattr(recorded, name) for name in ("measurements", "records", "training", "health")}
    kept = replace(
        recorded, **{name: table[pd.MultiIndex.from_frame(table[RUN]).isin(names)] for name, table in tables.items()}
    )
    if not absent:
        return None, kept
    pooled = any(planned.samples is None and planned.contender in absent for planned in plan.points)
    points = [
        planned
        for planned in plan.points
        if planned.contender in absent or (planned.contender.method == REFERENCE and planned.samples is not None)
    ]
    seeds = {contender.seed for contender in absent}
    return replace(
        plan, points=points, policies={c: spec for c, spec in plan.policies.items() if c in absent},
        sources={seed: source for seed, source in plan.sources.items() if seed in seeds} or plan.sources,
        pool=plan.pool if pooled else [],
    ), kept  # fmt: skip


def same_pairs(root: Path, plan: Plan, folder: Path, recorded: Results) -> bool:
    """Whether the training pairs here are the very ones of the records; another machine rounds, and draws, a little otherwise.
    Raises UserError if the evaluation prompts differ: nothing could be paired.
    """
    drawn, here = recorded.runs["drawn"], drawn_digests(root, plan)
    for split in ("validation", "test"):
        if drawn[split] != here[split]:
            raise UserError(
                f"--reuse-records {folder}: the {split} prompts drawn on this machine are not those of the records (another "
                "rounding); leave the option out to run the baselines here"
            )
    return all(drawn.get(name) == digest for name, digest in here.items() if name.startswith("pairs"))


def differences(spec: RunSpec, runs: Mapping[str, Any]) -> Iterator[str]:
    """Why a run is not among the recorded ones, the earliest stage first."""
    if spec.key[:16] in runs:
        return
    twins = [run for run in runs.values() if (run["stage"], run["title"]) == (spec.stage, spec.title)]
    for needed in spec.inputs.values():
        yield from differences(needed, runs)
    what = f"{spec.stage} {spec.title!r}"
    if not twins:
        yield f"{what} is not among the recorded runs"
        return
    here = json.loads(json.dumps(spec.config))
    for path, ours, theirs in _unequal(here, twins[0]["config"]):
        yield f"{what}: {path} is {ours} here, {theirs} in the records"
    if spec.code != twins[0]["code"]:
        yield f"{what}: the code has changed since the records were made"


def _unequal(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in {**theirs, **ours}:
            yield from _unequal(ours.get(name), theirs.get(name), f"{path}.{name}".lstrip("."))
    elif ours != theirs:
        yield path, ours, theirs


def together(new: Results, recorded: Results) -> Results:
    """One set of results; of what both have, the reference above all, the recorded rows count."""

    def joined(name: str, by: Sequence[str] = RUN) -> pd.DataFrame:
        mine, theirs = getattr(new, name), getattr(recorded, name)
        known = pd.MultiIndex.from_frame(theirs[list(by)])
        fresh = mine[~pd.MultiIndex.from_frame(mine[list(by)]).isin(known)]
        return pd.concat([theirs, fresh], ignore_index=True) if len(fresh) else theirs.reset_index(drop=True)

    records = joined("records")
    records["selected"] = on_hull(records)
    mine, theirs = new.about, recorded.about
    about = {
        **mine, "seeds": sorted({*mine["seeds"], *theirs["seeds"]}),
        "trained_runs": mine["trained_runs"] + len(recorded.training[RUN].drop_duplicates()),
        "worker_minutes": mine["worker_minutes"] + theirs["worker_minutes"],
        "sampler_kl": max(mine["sampler_kl"], theirs["sampler_kl"]),
        "unsearched": sorted({*mine["unsearched"], *theirs["unsearched"]}),
        **{name: {**theirs.get(name, {}), **mine.get(name, {})} for name in ("pairs", "reward_model")},
        "targets": [*theirs["targets"], *(target for target in mine["targets"] if target not in theirs["targets"])],
    }  # fmt: skip
    runs = {**new.runs, **{name: {**recorded.runs[name], **new.runs[name]} for name in ("drawn", "runs")}}
    others = {name: joined(name) for name in ("measurements", "training", "health")}
    if new.samples is not None and recorded.samples is not None:
        others["samples"] = joined("samples", [*RUN, "step", "kind", "prompt_id"])
    return replace(new, about=about, records=records, ideal=recorded.ideal, runs=runs, **others)
