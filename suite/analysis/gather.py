"""A finished plan → `Results`: every number that its runs and its judge left, with what each policy cost and how it is."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.costs import cost_at, reward_model_compute, training_metrics
from suite.analysis.curves import win_rate_rows
from suite.analysis.records import IDEAL_COLUMNS, NOT_JUDGED, PLACE, POINT, SCHEMA, Results, on_hull
from suite.analysis.reuse import recorded_runs
from suite.common.errors import UserError
from suite.common.registry import load
from suite.engine.making import closure
from suite.engine.store import RunSpec, facts, provenance, reading
from suite.evaluation.best_of_n import pool_rows
from suite.evaluation.generation_health import alarms, generation_health
from suite.interfaces import Contender, Task
from suite.maths.best_of_n import best_of_n_kl_bound
from suite.maths.ideal_frontier import IdealFrontier, ideal_frontier
from suite.maths.statistics import exactly, mean_interval
from suite.study.plan import Plan, PlannedPoint
from suite.study.run import Finished, samples_of
from suite.study.study import was_searched

BY_FORMULA = ("upper_bound", "by definition")
"""Estimators of numbers that no sample decides."""


def gather(finished: Finished, experiment: str) -> Results:
    """Everything of a finished plan, for the results of `experiment`. Raises UserError if a point has no valid verdict, and
    Damaged, which names it, if a run is not what it was.
    """
    with reading(finished.options.runs, closure(finished.plan.targets)):
        return gathered(finished, experiment)


def gathered(finished: Finished, experiment: str) -> Results:
    """The same of runs that others may be at work on: a damaged one is not set aside."""
    plan, root = finished.plan, finished.options.runs
    common = {"experiment": experiment, "task": answered(plan).name, "profile": plan.study.profile}
    parts, records = [], []
    for rows, point, about in _points(finished):
        parts.append(rows.assign(**point))
        records += [{**common, **point, **about, **row} for row in _records(rows, plan, point)]
    table = pd.DataFrame(records)
    table.loc[table["metric"] == "reward", "unit"] = plan.study.reward_name
    if {"reward", "kl"} <= set(table["metric"]):
        table["selected"] = on_hull(table) if (table["panel"] == "frontier").all() else False
    measurements = pd.concat(parts, ignore_index=True)[[*POINT, *PLACE, "split", "prompt_id", "sample", "metric", "value"]]
    measurements["value"] = measurements["value"].astype("float32").astype("float64")  # as they are stored
    ideal = ideal_of(root, plan)
    points = None if ideal is None else pd.DataFrame({name: getattr(ideal, name) for name in IDEAL_COLUMNS})
    return Results(
        about_of(finished), measurements, table, training_metrics(root, plan), health_table(finished), points,
        verdicts=finished.tables.get("verdicts"), runs=recorded_runs(root, plan),
    )  # fmt: skip


def _points(finished: Finished) -> Iterator[tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]]:
    """Of every planned point: its numbers (`split`, `prompt_id`, `sample`, `metric`, `value`), its place, and what it cost."""
    plan, root = finished.plan, finished.options.runs
    pooled = {(p.contender, split) for p in plan.points if p.samples is None for split in p.point.splits}
    pool = _Pool(root, plan) if pooled else None
    for k, planned in enumerate(plan.points):
        contender, place = planned.contender, place_of(root, planned)
        if planned.samples is None:
            assert pool is not None
            rows, about = pool.of(contender)
            yield rows, place, about
            continue
        run = planned.measured or planned.samples
        if planned.measured:
            rows = pd.read_parquet(planned.measured.directory(root) / "measurements.parquet")
            rows = rows[[(contender, split) not in pooled for split in rows["split"]]]  # the larger pool counts
        else:
            assert finished.judged is not None
            rows = finished.judged[finished.judged["point"] == k].drop(columns="point")
            rows = pd.concat([rows, kl_of_answers(root, planned)], ignore_index=True)
        if rows.empty:
            continue
        made = facts(root, run)
        cost = cost_at(root, plan, plan.policies[contender], place["step"]) if contender in plan.trained else {"compute": 0}
        tokens = rows.loc[rows["metric"] == "tokens", "value"]
        about = {
            **cost, **({"tokens_per_completion": tokens.mean()} if len(tokens) and contender in plan.trained else {}),
            "run_key": run.key[:16],
            "git_sha": made["git_sha"], "created_at": made["created_at"], "privileged": False, "kl_is_bound": False,
        }  # fmt: skip
        yield rows, place, about


def kl_of_answers(root: Path, planned: PlannedPoint) -> pd.DataFrame:
    """KL(π‖π_ref) [nats] by prompt of judged answers: log π - log π_ref of those drawn at temperature 1 (k1), the bound of
    Best-of-N; nothing at other temperatures, whose answers are not the policy's own, and of a policy whose log π is not known.
    """
    frame = samples_of(root, planned)
    if planned.point.temperature != 1 or "reference_logps" not in frame or frame["reference_logps"].isna().any():
        return pd.DataFrame()
    n = planned.contender.n if planned.point.panel != "best_of_n" else int(planned.point.x)
    if n == 1 and frame["sampler_log_prob"].isna().any():  # answers that were cut at a stop
        return pd.DataFrame()
    value = best_of_n_kl_bound(n) if n > 1 else frame["sampler_log_prob"] - frame["reference_logps"]
    columns = frame[["split", "prompt_id", "sample"]].assign(sample=0, metric="kl", value=value)
    return columns[columns["split"] == "test"]


def place_of(root: Path, planned: PlannedPoint) -> dict[str, Any]:
    """`POINT` and `PLACE` of a point; the step of a policy that was not trained is 0."""
    contender, point, step = planned.contender, planned.point, 0
    if planned.samples is not None and planned.policy is not None:
        step = int(pd.read_parquet(planned.samples.directory(root) / "samples.parquet", columns=["step"])["step"].iloc[0])
    values = (contender.method, contender.setting, contender.seed, step, point.panel, float(point.x), float(point.temperature))
    return dict(zip((*POINT, *PLACE), values, strict=True))


def _records(rows: pd.DataFrame, plan: Plan, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per split and metric; prompts are the units."""
    if "win" in plan.evaluator.metrics:
        try:
            yield from win_rate_rows(rows[rows["metric"] != "kl"], seed=plan.study.seed)
        except ValueError as error:
            raise UserError(
                f"{point['method']} {point['setting']}, T = {point['temperature']:g}: no win rate: {error}"
            ) from error
        if len(kl := rows.loc[rows["metric"] == "kl", "value"]):
            bound = len(kl) > 1 and len(set(kl)) == 1  # that of Best-of-N, a formula
            found = exactly(float(kl.iloc[0]), len(kl)) if bound else mean_interval(kl)
            yield {
                "split": "test", "metric": "kl", "value": found.mean, "unit": "nats/completion", "n": found.n,
                "ci_low": found.low, "ci_high": found.high, "estimator": "sampled, k1, or the bound of Best-of-N",
            }  # fmt: skip
        return
    limits = {"share": (0.0, 1.0), "tokens/completion": (1.0, float(plan.study.max_new_tokens))}
    for split, part in rows.groupby("split"):
        for name, metric in plan.evaluator.metrics.items():
            of_metric, estimator = part[part["metric"] == name], metric.estimator
            if name == "reference_log_prob" or of_metric.empty:  # the first is kept per prompt and gets no record
                continue
            if (of_metric["sample"] < 0).all():  # expected over the pool
                estimator = f"order statistics of {plan.study.pool_size} reference samples per prompt"
                if name == "kl":
                    estimator = BY_FORMULA[0] if point["setting"] else BY_FORMULA[1]
            values = of_metric.groupby("prompt_id", sort=False)["value"].mean()
            if estimator in BY_FORMULA:
                interval = exactly(float(values.iloc[0]), len(values))
            else:
                interval = mean_interval(values, limits=limits.get(metric.unit))
            yield {
                "split": split, "metric": name, "value": interval.mean, "unit": metric.unit, "n": interval.n,
                "ci_low": interval.low, "ci_high": interval.high, "estimator": estimator,
            }  # fmt: skip


class _Pool:
    """The shared pool of reference samples of test prompts: the reference itself and every N of Best-of-N."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        everyone = pool_table(root, [shard.gold for shard in plan.pool])
        drawn = int(everyone.notna().to_numpy().sum())
        self.rewards = everyone.iloc[:, : plan.study.pool_size]
        odds = pool_table(root, [shard.gold for shard in plan.pool], "log_odds").loc[self.rewards.index, self.rewards.columns]
        self.odds = odds if odds.notna().all(axis=None) else None
        self.scores = {
            seed: pool_table(root, scores).loc[self.rewards.index, self.rewards.columns]
            for seed, scores in plan.pool_scores.items()
        }
        self.tokens = sum(facts(root, shard.samples)["tokens_sampled"] for shard in plan.pool) / drawn

    def of(self, contender: Contender) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Numbers of a contender (`suite.evaluation.best_of_n.pool_rows`), and what is said of it in the records."""
        selects, first = contender.n > 1, self.plan.pool[0].samples
        made = facts(self.root, first)
        source = self.plan.sources.get(contender.seed, self.plan.source)
        scores = self.scores[contender.seed] if contender.learned else None
        return pool_rows(self.rewards, contender.n, scores, self.odds), {
            "tokens_per_completion": contender.n * self.tokens, "run_key": first.key[:16], "git_sha": made["git_sha"],
            "created_at": made["created_at"], "privileged": selects and not contender.learned, "kl_is_bound": selects,
            "compute": reward_model_compute(self.root, source) if contender.learned else 0,
        }  # fmt: skip


def pool_table(root: Path, scores: list[RunSpec], column: str = "score") -> pd.DataFrame:
    """Rewards of the pool, or their log-odds: prompts by samples, NaN where a prompt has fewer than others."""
    frame = pd.concat([pd.read_parquet(spec.directory(root) / "scores.parquet") for spec in scores])
    return frame.pivot(index="prompt_id", columns="sample", values=column)


def ideal_of(root: Path, plan: Plan) -> IdealFrontier | None:
    """The ideal frontier from the pool's first prompts, which have the most samples; None without a pool of 16 or more."""
    if not plan.pool:
        return None
    everyone = pool_table(root, [shard.gold for shard in plan.pool])
    start = float(everyone.iloc[:, : plan.study.pool_size].to_numpy().mean())  # the reference's reward in the records
    table = everyone.dropna()
    if table.shape[1] < 16 or not (table.max(axis=1) > table.min(axis=1)).any():  # too few, or no reward varies
        return None
    return ideal_frontier(table.to_numpy(), maximum=plan.study.reward_maximum, start=start)


def health_table(finished: Finished) -> pd.DataFrame:
    """One row per policy and place: `POINT`, `PLACE`, what `generation_health` says of its first sample per test prompt, and
    `alarms` beside the reference at the same temperature; empty where nothing is wrong.
    """
    plan, root = finished.plan, finished.options.runs
    rows, starts = [], dict[float, dict[str, float]]()
    for planned in plan.points:
        if planned.samples is None or "test" not in planned.point.splits:
            continue
        frame = samples_of(root, planned)
        frame = frame[frame["split"] == "test"]
        frame = frame if planned.scores else frame[frame["sample"] == 0]
        if "reference_logps" not in frame:
            assert planned.measured is not None, "an evaluator without a judge measures log π_ref, or its samples have it"
            found = pd.read_parquet(planned.measured.directory(root) / "measurements.parquet")
            found = found[(found["metric"] == "reference_log_prob") & (found["split"] == "test")]
            frame = frame.merge(found[["prompt_id", "sample", "value"]].rename(columns={"value": "reference_logps"}))
        health = generation_health(frame)
        place = place_of(root, planned)
        if planned.policy is None and planned.contender.n == 1:
            starts.setdefault(place["temperature"], health)
        rows.append({**place, **health})
    for row in rows:
        start = starts.get(row["temperature"])
        row["alarms"] = "; ".join(alarms(row, start)) if start else NOT_JUDGED
    return pd.DataFrame(rows)


def answered(plan: Plan) -> Task:
    """The task whose prompts are answered: the study's, or another's."""
    return load(next(iter(plan.prompts.values())).config["task"], "task")


def about_of(finished: Finished) -> dict[str, Any]:
    """`study.json`: what captions and pages say of a study."""
    plan, root, study = finished.plan, finished.options.runs, finished.plan.study
    runs = closure(plan.targets)
    counts = {"learned from": plan.source.prompts, **plan.prompts}
    if plan.judge_model and plan.judge_model.key != plan.source.reward_model.key:
        counts["judge"] = plan.judge_model.inputs["pairs"]
    data = {name: json.loads((spec.directory(root) / "counts.json").read_text()) for name, spec in counts.items()}
    about = {
        "schema": SCHEMA, "profile": study.profile, "task": answered(plan).name, "evaluator": plan.evaluator.name,
        "model": Path(study.model).name, "seeds": sorted({contender.seed for contender in plan.trained}),
        "labels": "given" if plan.task.gives_pairs else study.labels,
        "test_prompts": plan.prompts["test"].config["size"] if "test" in plan.prompts else 0,
        "max_new_tokens": study.max_new_tokens, "pool_size": study.pool_size, "reward": study.reward_name,
        "reward_maximum": study.reward_maximum, "command": finished.options.command, "date": date.today().isoformat(),
        "workers": finished.options.workers, "machine": provenance()["machine"],
        "device": study.device, "data": data, "trained_runs": len(plan.trained),
        "worker_minutes": sum(facts(root, spec)["seconds"] for spec in runs) / 60,
        "sampler_kl": max((facts(root, spec).get("sampler_kl", 0.0) for spec in runs), default=0.0),
        "sampler_dtype": study.sampler_dtype + ("" if study.sampler == "own" else f" by {study.sampler}"),
        "unsearched": sorted({c.method for c, spec in plan.trained.items() if not was_searched(study, spec.config["method"])}),
        "targets": [
            [contender.method, contender.setting, spec.config["config"]["target_kl"]]
            for contender, spec in plan.trained.items()
            if spec.config["config"].get("target_kl") is not None
        ],
    }  # fmt: skip
    if not plan.task.gives_pairs:
        about["pairs"] = {
            str(seed): json.loads((source.pairs.directory(root) / "counts.json").read_text())
            for seed, source in plan.sources.items()
        }
    made = {spec.key for spec in runs}
    about["reward_model"] = {}
    for seed, source in plan.sources.items():  # its held-out pairs, one row each, and which snapshot was kept
        for name, spec in source.fitted.items() if source.reward_model.key in made else ():
            folder = spec.directory(root)
            table = pd.read_parquet(folder / "held_out.parquet")
            held_out = table.astype(object).where(table.notna(), None).to_dict("list")
            quality = json.loads((folder / "quality.json").read_text())
            about["reward_model"][f"{seed}, {name}".removesuffix(", ")] = {**quality, "held_out": held_out}
    return about
