"""Finished evaluations → tidy records (one row = one measurement) and per-prompt numbers; `suite.records` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.files import write_atomically
from suite.maths.ideal_frontier import IdealFrontier, ideal_frontier
from suite.maths.kl import best_of_n_kl_bound
from suite.maths.statistics import expected_best_of_n, mean_interval
from suite.records import POINT, POLICY, REFERENCE, chosen_policies
from suite.runs.costs import cost_at, reward_model_compute, training_metrics
from suite.runs.health import health_table
from suite.runs.plan import Plan, PoolSetting
from suite.runs.run_store import RunSpec, facts
from suite.runs.stages import pool_column

SCHEMA = 2
IDEAL_COLUMNS = ("kl", "reward", "low", "high", "effective_samples")

# metric → (column of the samples, unit, estimator)
MEASURED = {
    "reward": ("reward", "", "mean over prompts"),
    "log_odds": ("log_odds", "nats", "mean over prompts"),
    "kl": ("kl_exact", "nats/completion", "exact per step"),
    "kl_k1": ("kl_k1", "nats/completion", "sampled, k1"),
    "kl_per_token": ("kl_per_token", "nats/token", "exact per step, mean over completions"),
    "tokens": ("tokens", "tokens/completion", "mean over prompts"),
    "sampler_kl": ("sampler_kl", "nats/completion", "sampled, k3, sampler against scorer"),
}


@dataclass(frozen=True)
class Tables:
    """All that a finished plan says, without texts: what figures and pages are made from."""

    records: pd.DataFrame
    numbers: pd.DataFrame
    """Per prompt; see `collect`."""
    training: pd.DataFrame
    """See `suite.runs.costs.training_metrics`."""
    health: pd.DataFrame
    """See `suite.runs.health.health_table`."""
    ideal: pd.DataFrame | None
    """The ideal frontier's points, one row each."""


def tables_of(root: Path, plan: Plan, *, experiment: str) -> Tables:
    """Everything of a finished plan."""
    records, numbers = collect(root, plan, experiment=experiment)
    ideal = ideal_of(root, plan)
    points = None if ideal is None else pd.DataFrame({name: getattr(ideal, name) for name in IDEAL_COLUMNS})
    return Tables(records, numbers, training_metrics(root, plan), health_table(root, plan), points)


def collect(root: Path, plan: Plan, *, experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and per-prompt numbers of a finished plan.

    Returns:
        Records, one row per (policy, split, metric) with interval and n; and per-prompt numbers, one row per completion (for
        the reference and Best-of-N on test prompts: one per prompt, from the pool). Neither holds text.
    """
    rows: list[dict[str, Any]] = []
    numbers: list[pd.DataFrame] = []
    common = {"experiment": experiment, "task": plan.study.task, "profile": plan.study.profile, "schema": SCHEMA}
    for run in plan.trained:
        for spec in run.evaluations:
            frame = pd.read_parquet(spec.directory(root) / "samples.parquet")
            step = int(frame["step"].iloc[0])
            point = {"method": run.method, "setting": run.label, "seed": run.seed, "step": step}
            cost = {**cost_at(root, plan, run, step), "tokens_per_completion": frame["tokens"].mean()}
            rows += [{**common, **point, **cost, **row} for row in _measurements(frame, spec, root)]
            numbers.append(_numbers(frame, point))
    reference = pd.read_parquet(plan.reference_evaluation.directory(root) / "samples.parquet")
    point = {"method": REFERENCE, "setting": "", "seed": 0, "step": 0}
    cost = {"compute": 0}
    if plan.pool:  # its test reward comes from the larger pool
        reference = reference[reference["split"] != "test"]
    rows += [{**common, **point, **cost, **row} for row in _measurements(reference, plan.reference_evaluation, root)]
    numbers.append(_numbers(reference, point))
    if plan.pool:
        pool_rows, pool_numbers = _pool_points(root, plan)
        rows += [{**common, **row} for row in pool_rows]
        numbers += pool_numbers
    records = pd.DataFrame(rows)
    records.loc[records["metric"] == "reward", "unit"] = plan.study.reward_name
    records["selected"] = on_hull(records)
    return records, pd.concat(numbers, ignore_index=True)


def _measurements(frame: pd.DataFrame, spec: RunSpec, root: Path) -> list[dict[str, Any]]:
    """One row per split and metric of one evaluation; prompts are the units."""
    about = facts(root, spec)
    frame = frame.assign(kl_per_token=frame["kl_exact"] / frame["tokens"])
    rows = []
    for split, part in frame.groupby("split"):
        for metric, (column, unit, estimator) in MEASURED.items():
            values = part.groupby("prompt_id")[column].mean().to_numpy()
            if np.isnan(values).any():
                continue
            rows.append(
                {"split": split, **_value(metric, values, unit, estimator), "run_key": spec.key[:16],
                 "git_sha": about["git_sha"], "created_at": about["created_at"], "privileged": False,
                 "kl_is_bound": False}
            )  # fmt: skip
    return rows


def _value(metric: str, values: np.ndarray, unit: str, estimator: str) -> dict[str, Any]:
    interval = mean_interval(values)
    return {
        "metric": metric, "value": interval.mean, "unit": unit, "n": interval.n, "ci_low": interval.low,
        "ci_high": interval.high, "estimator": estimator,
    }  # fmt: skip


def _numbers(frame: pd.DataFrame, point: dict[str, Any]) -> pd.DataFrame:
    columns = ["split", "prompt_id", "sample", "reward", "log_odds", "kl_exact", "kl_k1", "tokens", "truncated"]
    return frame[columns].assign(**point)[[*POINT, *columns]]


def _pool_points(root: Path, plan: Plan) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """The reference and every N of Best-of-N on test prompts, from the shared pool of reference samples."""
    table = pool_column([spec.directory(root) / "completions.parquet" for spec in plan.pool], "reward")
    drawn = int(table.notna().to_numpy().sum())
    table = table.iloc[:, : plan.study.pool_size]
    rewards, scores = table.to_numpy(), None
    if plan.pool_scores:
        files = [spec.directory(root) / "scores.parquet" for spec in plan.pool_scores]
        scores = pool_column(files, "score").loc[table.index, table.columns].to_numpy()
    tokens = sum(facts(root, spec)["tokens_sampled"] for spec in plan.pool) / drawn
    about = facts(root, plan.pool[0])
    estimator = f"order statistics of {rewards.shape[1]} reference samples per prompt"
    rows, numbers = [], []
    for setting in [PoolSetting(REFERENCE, "", 1, learned=False), *plan.pool_settings]:
        selects = setting.method != REFERENCE
        point = {"method": setting.method, "setting": setting.label, "seed": 0, "step": 0}
        per_prompt = expected_best_of_n(rewards, setting.n, scores=scores if setting.learned else None)
        bound = {"metric": "kl", "value": best_of_n_kl_bound(setting.n), "unit": "nats/completion", "n": len(per_prompt),
                 "estimator": "upper_bound" if selects else "by definition"}  # fmt: skip
        bound |= {"ci_low": bound["value"], "ci_high": bound["value"]}
        about_all = {
            "tokens_per_completion": setting.n * tokens, "run_key": plan.pool[0].key[:16], "git_sha": about["git_sha"],
            "created_at": about["created_at"], "privileged": selects and not setting.learned, "kl_is_bound": selects,
            "compute": reward_model_compute(root, plan) if setting.learned else 0,
        }  # fmt: skip
        for row in (_value("reward", per_prompt, MEASURED["reward"][1], estimator), bound):
            rows.append({**point, "split": "test", **row, **about_all})
        frame = pd.DataFrame({"split": "test", "prompt_id": table.index, "sample": -1, "reward": per_prompt})
        numbers.append(frame.assign(kl_exact=np.nan if selects else 0.0, **point))
    return rows, numbers


def on_hull(records: pd.DataFrame) -> pd.Series:
    """True on every row of the reference and of a policy on its method's hull."""
    chosen = {(method, *policy) for method, policies in chosen_policies(records).items() for policy in policies}
    return records[POLICY].apply(tuple, axis=1).isin(chosen) | (records["method"] == REFERENCE)


def ideal_of(root: Path, plan: Plan) -> IdealFrontier | None:
    """The ideal frontier from the pool's first prompts, which have the most samples; None without a pool of 16 or more."""
    if not plan.pool:
        return None
    everyone = pool_column([spec.directory(root) / "completions.parquet" for spec in plan.pool], "reward")
    start = float(everyone.iloc[:, : plan.study.pool_size].to_numpy().mean())  # the reference's reward in the records
    table = everyone.dropna()
    if table.shape[1] < 16 or not (table.max(axis=1) > table.min(axis=1)).any():  # too few, or no reward varies
        return None
    return ideal_frontier(table.to_numpy(), maximum=plan.study.reward_maximum, start=start)


def write_records(out: Path, records: pd.DataFrame, numbers: pd.DataFrame) -> None:
    """`records.csv` and `per_prompt.parquet`, each replaced in one step."""
    write_atomically(out / "records.csv", lambda path: records.to_csv(path, index=False, float_format="%.6g"))
    write_atomically(out / "per_prompt.parquet", lambda path: numbers.to_parquet(path, index=False))


def sample_completions_of(root: Path, plan: Plan, *, prompts: int) -> pd.DataFrame:
    """The first test completions of the reference and of every setting's last snapshot: method, setting, prompt, text."""
    test_prompts = plan.reference_evaluation.inputs["test"].directory(root)
    texts = pd.read_parquet(test_prompts / "prompts.parquet").set_index("prompt_id")["prompt_text"]
    last = [(run.method, run.label, run.evaluations[-1]) for run in plan.trained if run.seed == plan.trained[0].seed]
    parts = []
    for method, label, spec in [(REFERENCE, "", plan.reference_evaluation), *last]:
        frame = pd.read_parquet(spec.directory(root) / "samples.parquet")
        frame = frame[(frame["split"] == "test") & (frame["sample"] == 0)].head(prompts)
        parts.append(frame.assign(method=method, setting=label, prompt=frame["prompt_id"].map(texts)))
    return pd.concat(parts, ignore_index=True)[["method", "setting", "prompt_id", "prompt", "text", "reward", "kl_exact"]]
