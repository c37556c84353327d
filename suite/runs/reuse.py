"""Baselines from committed records: what was measured before, where it is exactly what would be measured now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.errors import UserError
from suite.files import write_atomically
from suite.records import REFERENCE
from suite.runs.collect import Tables, on_hull
from suite.runs.plan import Plan
from suite.runs.run_store import RunSpec
from suite.runs.study import Study
from suite.runs.sweep import closure

RUNS_FILE = "runs.json"


def write_runs(root: Path, plan: Plan, out: Path) -> None:
    """`runs.json`: the specification of every run behind the records, and a digest of the test prompts, so that others can
    tell whether their runs are comparable.
    """
    runs = {
        spec.key[:16]: {
            "stage": spec.stage, "title": spec.title, "code": spec.code, "config": spec.config,
            "inputs": {name: needed.key[:16] for name, needed in spec.inputs.items()},
        }
        for spec in closure(plan.targets)
    }  # fmt: skip
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(run)}" for key, run in runs.items())
    drawn, precision = json.dumps(drawn_digests(root, plan)), json.dumps(precision_of(plan.study))
    text = f'{{"drawn": {drawn}, "precision": {precision}, "runs": {{\n{lines}\n}}}}\n'
    write_atomically(out / RUNS_FILE, lambda path: path.write_text(text))


def precision_of(study: Study) -> dict[str, str]:
    """The arithmetic that profiles choose by the machine."""
    optims = {"optim": study.optim, "reward_model": study.reward_model}
    return {**{name: optim.precision for name, optim in optims.items()}, "sampler_dtype": study.sampler_dtype}


def in_recorded_precision(study: Study, folder: Path) -> Study:
    """`study` in the arithmetic of the records, whatever suits this machine.

    Raises:
        UserError: The folder is not one of a finished study.
    """
    used = _recorded(folder)["precision"]
    optims = {name: replace(getattr(study, name), precision=used[name]) for name in ("optim", "reward_model")}
    return replace(study, sampler_dtype=used["sampler_dtype"], **optims)


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / RUNS_FILE
    if not path.exists():
        raise UserError(f"--reuse-records {folder}: no {RUNS_FILE} there; give the results folder of a finished study")
    found: dict[str, Any] = json.loads(path.read_text())
    if absent := {"drawn", "precision", "runs"} - found.keys():
        raise UserError(f"{path}: no {', '.join(sorted(absent))}: by another version; make these results again")
    return found


def drawn_digests(root: Path, plan: Plan) -> dict[str, str]:
    """Hashes of what is sampled and may therefore differ between machines of one key: evaluation prompts, training pairs."""
    pairs = pd.read_parquet(plan.pairs.directory(root) / "pairs.parquet", columns=["prompt_id", "chosen_ids", "rejected_ids"])
    digests = {"pairs": _digest([[row[0], list(map(int, row[1])), list(map(int, row[2]))] for row in pairs.to_numpy()])}
    for split in ("validation", "test"):
        frame = pd.read_parquet(plan.reference_evaluation.inputs[split].directory(root) / "prompts.parquet")
        digests[split] = _digest([[row.prompt_id, list(map(int, row.prompt_ids))] for row in frame.itertuples()])
    return digests


def _digest(rows: list[Any]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def read_recorded(folder: Path, plan: Plan) -> Tables:
    """The records of `plan`'s methods in a results folder, if they are of the very runs that `plan` would make.

    Args:
        folder: With `records.csv`, `per_prompt.parquet`, `training.parquet`, `health.csv` and `runs.json`.
        plan: Of the baselines, as they would be run now.

    Raises:
        UserError: The folder is incomplete, or a run differs; names the first difference.
    """
    needed = ("records.csv", "per_prompt.parquet", "training.parquet", "health.csv")
    runs: dict[str, Any] = _recorded(folder)["runs"]
    if absent := [name for name in needed if not (folder / name).exists()]:
        raise UserError(f"--reuse-records {folder}: no {', '.join(absent)} there; give the results folder of a finished study")
    for spec in (plan.reference_evaluation, *plan.pool, *plan.pool_scores, *(e for r in plan.trained for e in r.evaluations)):
        if spec.key[:16] not in runs:
            reason = next(differences(spec, runs), "it was made by other settings or code")
            raise UserError(
                f"--reuse-records {folder}: cannot be compared: {reason}. Leave the option out to run the baselines here"
            )
    records = pd.read_csv(folder / "records.csv", keep_default_na=False, na_values=[""]).fillna({"setting": ""})
    health = pd.read_csv(folder / "health.csv", keep_default_na=False, na_values=[""]).fillna({"setting": "", "alarms": ""})
    numbers, training = (pd.read_parquet(folder / name) for name in ("per_prompt.parquet", "training.parquet"))
    wanted = {(REFERENCE, "", 0)} | {(run.method, run.label, run.seed) for run in plan.trained}
    wanted |= {(setting.method, setting.label, 0) for setting in plan.pool_settings}

    def kept(table: pd.DataFrame) -> pd.DataFrame:
        return table[pd.MultiIndex.from_frame(table[["method", "setting", "seed"]]).isin(wanted)]

    ideal = pd.read_csv(folder / "ideal.csv") if (folder / "ideal.csv").exists() else None
    return Tables(kept(records), kept(numbers), kept(training), kept(health), ideal)


def same_pairs(root: Path, plan: Plan, folder: Path) -> bool:
    """Whether the training pairs here are the very ones of the records; another machine rounds, and draws, a little otherwise.

    Raises:
        UserError: The evaluation prompts differ: nothing could be paired.
    """
    recorded, here = _recorded(folder)["drawn"], drawn_digests(root, plan)
    for split in ("validation", "test"):
        if recorded[split] != here[split]:
            raise UserError(
                f"--reuse-records {folder}: the {split} prompts drawn on this machine are not those of the records (another "
                "rounding); leave the option out to run the baselines here"
            )
    return bool(recorded["pairs"] == here["pairs"])


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


def together(new: Tables, recorded: Tables) -> Tables:
    """One set of tables; of what both have, the reference above all, the recorded rows count."""

    def joined(name: str, by: Sequence[str] = ("method", "setting", "seed")) -> pd.DataFrame:
        mine, theirs = getattr(new, name), getattr(recorded, name)
        known = pd.MultiIndex.from_frame(theirs[list(by)])
        fresh = mine[~pd.MultiIndex.from_frame(mine[list(by)]).isin(known)]
        return pd.concat([theirs, fresh], ignore_index=True) if len(fresh) else theirs.reset_index(drop=True)

    records = joined("records")
    records["selected"] = on_hull(records)
    return Tables(records, joined("numbers"), joined("training"), joined("health"), recorded.ideal)
