"""The one schema of results: numbers per prompt, records with intervals, tables beside them; read, written and looked at.

A policy is named by `POLICY` and its training seed, and stands in a figure at `PLACE`. pandas alone, no torch.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from suite.common.errors import UserError
from suite.common.files import of_the_disk, write_atomically
from suite.maths.frontier import hull_indices
from suite.maths.ideal_frontier import IdealFrontier
from suite.maths.statistics import mean_interval
from suite.study.plan import REFERENCE

SCHEMA = 4
POINT = ["method", "setting", "seed", "step"]
POLICY = ["method", "setting", "step"]
PLACE = ["panel", "x", "temperature"]
PLACED = [*POINT, *PLACE]
"""What tells the rows of a policy at a place from all others."""
ABOUT = ("privileged", "kl_is_bound", "compute")
IDEAL_COLUMNS = ("kl", "reward", "low", "high", "effective_samples")
TABLES = {
    "training": "training.parquet", "health": "health.csv", "ideal": "ideal.csv", "behind": "behind.csv",
    "verdicts": "verdicts.csv", "samples": "samples.parquet",
}  # fmt: skip

COLUMNS = {
    "measurements": [*POINT, *PLACE, "split", "prompt_id", "sample", "metric", "value"],
    "records": [*POINT, *PLACE, "split", "metric", "value", "n", "ci_low", "ci_high"],
    "training": POINT, "health": [*POINT, "alarms"], "ideal": [*IDEAL_COLUMNS], "behind": ["method", "metric", "kl", "value"],
    "verdicts": [], "samples": [*POINT, *PLACE, "name", "kind", "prompt_id", "shown", "answer", "text"],
}  # fmt: skip
"""What every table must have, whatever else it has."""
TEXTS = {"method", "setting", "panel", "split", "prompt_id", "metric", "alarms", "name", "kind", "shown", "answer", "text"}
"""Columns that are no numbers."""

NOT_JUDGED = "not judged: no reference at this temperature"


def sick(health: pd.DataFrame) -> pd.DataFrame:
    """Policies with an alarm."""
    return health[~health["alarms"].isin(["", NOT_JUDGED])]


@dataclass(frozen=True)
class Results:
    """All that a results folder holds but texts: what figures and pages are made from.

    Attributes:
        about: `study.json`: profile, sizes, settings, data, command, date.
        measurements: One row per policy, prompt and metric: `POINT`, `PLACE`, `split`, `prompt_id`, `sample` (-1: expected over
            a pool), `metric`, `value`.
        records: One row per policy, split and metric: `POINT`, `PLACE`, `split`, `metric`, `value`, `unit`, `n` prompts,
            `ci_low`, `ci_high` (95 % over prompts), `estimator`; what the policy cost; the run, its commit and date.
        training: What runs logged, one row per run and step (`suite.analysis.costs.training_metrics`).
        health: Generation health, one row per policy and place (`suite.analysis.gather.health_table`).
        ideal: Points of the ideal frontier, if there is one.
        behind: Lines of a larger study, drawn behind (`suite.analysis.equal_kl.lines_of`).
        verdicts: Every verdict of a judge, if there was one.
        samples: What policies say to some test prompts (`suite.report.samples.samples_table`), if that may be kept.
        runs: `runs.json`: the specification of every run behind the numbers (`suite.analysis.reuse`).
    """

    about: dict[str, Any]
    measurements: pd.DataFrame
    records: pd.DataFrame
    training: pd.DataFrame
    health: pd.DataFrame
    ideal: pd.DataFrame | None = None
    behind: pd.DataFrame | None = None
    verdicts: pd.DataFrame | None = None
    samples: pd.DataFrame | None = None
    runs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ideal_frontier(self) -> IdealFrontier | None:
        """The limit that no policy can pass."""
        if self.ideal is None:
            return None
        columns = {name: self.ideal[name].to_numpy() for name in IDEAL_COLUMNS}
        return IdealFrontier(**columns, limit=float(self.ideal["kl"].iloc[-1]), maximum=self.about.get("reward_maximum", 1.0))


def write_results(folder: Path, results: Results) -> None:
    """Every table of a results folder, each replaced in one step."""
    write_text(folder / "study.json", json.dumps(results.about, indent=1) + "\n")
    names = [name for name in ("method", "setting", "panel", "split", "metric") if name in results.measurements]
    compact = results.measurements.astype({**dict.fromkeys(names, "category"), "value": "float32"})
    others = [name for name in compact if name != "value"]
    small = {"compression": "zstd", "compression_level": 9, "use_dictionary": others, "use_byte_stream_split": ["value"]}
    write_atomically(folder / "measurements.parquet", partial(compact.to_parquet, index=False, **small))
    write_table(folder / "records.csv", results.records)
    for name, file in TABLES.items():
        table = getattr(results, name)
        if table is None:
            (folder / file).unlink(missing_ok=True)  # of another run in the same folder
        elif file.endswith(".csv"):
            write_table(folder / file, table)
        else:
            write_atomically(folder / file, partial(table.to_parquet, index=False))
    if results.runs:
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(run)}" for key, run in results.runs["runs"].items())
        head = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.runs.items() if key != "runs")
        write_text(folder / "runs.json", f'{{{head}, "runs": {{\n{lines}\n}}}}\n')


def read_results(folder: Path) -> Results:
    """What `write_results` wrote. Raises UserError if it is no results folder, one of an older layout, or a damaged one."""
    path = folder / "study.json"
    files = {"measurements": "measurements.parquet", "records": "records.csv"}
    if absent := [file for file in ("study.json", *files.values()) if not (folder / file).exists()]:
        raise UserError(f"{folder}: no {', '.join(absent)} there; give the results folder of a finished study of this version")
    about = read_object(path)
    if about.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {about.get('schema')}, this version reads {SCHEMA}; make these results again")
    files |= {name: file for name, file in TABLES.items() if (folder / file).exists()}
    empty = {name: pd.DataFrame(columns=COLUMNS[name]) for name in ("training", "health")}
    tables: dict[str, Any] = {**empty, **{name: _read(folder / file, COLUMNS[name]) for name, file in files.items()}}
    policies = [set(tables[name][POINT].itertuples(index=False, name=None)) for name in ("measurements", "records")]
    if policies[0] != policies[1]:
        raise UserError(f"{folder}: records.csv and measurements.parquet are of different policies; {MEND}")
    runs = folder / "runs.json"
    return Results(about, **tables, runs=read_object(runs) if runs.exists() else {})


MEND = "make these results again, or take the folder from where it was whole"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """While results are read, or something is made of them: what cannot be understood is a UserError about `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or of_the_disk(error):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{path}: of another version, of several studies, or damaged ({reason}); {MEND}") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError if it is none."""
    with whole(path):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise UserError(f"{path}: no JSON object; {MEND}")
    return found


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    with whole(path):
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            table = table.astype(dict.fromkeys(table.select_dtypes("category").columns, str))
        else:
            if not path.read_bytes().endswith(b"\n"):
                raise UserError(f"{path}: the end is missing; {MEND}")
            table = pd.read_csv(path, keep_default_na=False, na_values=[""])
            texts = [name for name in ("setting", "alarms", "failure") if name in table]
            table = table.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))
        if absent := [name for name in columns if name not in table]:
            raise UserError(f"{path}: no column {', '.join(absent)}; {MEND}")
        for name in set(columns) - TEXTS:
            pd.to_numeric(table[name])
        return table.astype({"value": "float64"}) if "value" in table else table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """CSV with six significant digits, replaced in one step."""
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False, float_format="%.6g"))


def write_text(path: Path, text: str) -> None:
    """A text file, replaced in one step."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over training seeds of `kl`, `reward` and `compute`: one row per (method, setting, step)."""
    columns = [name for name in ("kl", "reward", *ABOUT) if name in table]
    return table.groupby(POLICY, sort=False, as_index=False)[columns].mean()


def wide(records: pd.DataFrame, split: str) -> pd.DataFrame:
    """One row per policy and place on `split`: its metrics as columns, with `_low`, `_high` and `_n`."""
    rows = records[records["split"] == split]
    keys = [*POINT, *(name for name in (*PLACE, *ABOUT, "selected") if name in rows)]
    table = rows.pivot_table(
        index=keys, columns="metric", values=["value", "ci_low", "ci_high", "n"], sort=False, observed=True
    )
    suffix = {"value": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}
    table.columns = [f"{metric}{suffix[kind]}" for kind, metric in table.columns]
    return table.reset_index()


def chosen_policies(records: pd.DataFrame) -> dict[str, dict[int, list[tuple[str, int]]]]:
    """(setting, step) of each method's policies on its hull, by growing KL, as validation prompts see it: of every training
    seed its own, as whoever repeats the experiment with that seed would choose.

    Of methods without validation points (Best-of-N) every policy counts: none is picked by its test reward.
    """
    validation, test = (wide(records, split) for split in ("validation", "test"))
    start = validation[validation["method"] == REFERENCE]
    chosen: dict[str, dict[int, list[tuple[str, int]]]] = {}
    for (method, seed), rows in test[test["method"] != REFERENCE].groupby(["method", "seed"], sort=False):
        judged = validation[(validation["method"] == method) & (validation["seed"] == seed)]
        if len(judged) and len(start):
            kept = hull_indices(judged["kl"], judged["reward"], reference_reward=float(start["reward"].iloc[0]))
            rows = judged.iloc[kept]
        else:
            rows = rows.sort_values("kl")
        chosen.setdefault(method, {})[int(seed)] = [(row["setting"], int(row["step"])) for _, row in rows.iterrows()]
    return chosen


def on_hull(records: pd.DataFrame) -> pd.Series:
    """True on every row of the reference and of a policy on its method's and seed's hull."""
    chosen = {
        (method, setting, seed, step)
        for method, of_seeds in chosen_policies(records).items()
        for seed, policies in of_seeds.items()
        for setting, step in policies
    }
    return records[POINT].apply(tuple, axis=1).isin(chosen) | (records["method"] == REFERENCE)


def per_prompt(measurements: pd.DataFrame, keys: list[str] = POINT) -> pd.DataFrame:
    """Metrics of test prompts as columns, mean over the samples of a prompt: indexed by `keys` and `prompt_id`."""
    rows = measurements[measurements["split"] == "test"]
    return rows.pivot_table(index=[*keys, "prompt_id"], columns="metric", values="value", sort=False)


def with_reward_intervals(test: pd.DataFrame, measurements: pd.DataFrame) -> pd.DataFrame:
    """`reward_low`, `reward_high` of each row of `over_seeds`: 95 % over test prompts of the mean over seeds."""
    rewards = per_prompt(measurements, keys=POLICY)["reward"]
    intervals = [mean_interval(rewards.loc[tuple(row[POLICY])]) for _, row in test.iterrows()]
    return test.assign(reward_low=[i.low for i in intervals], reward_high=[i.high for i in intervals])
