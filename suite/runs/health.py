"""Generation health of every evaluated policy of a plan, with alarms beside the reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from suite.evaluation.generation_health import alarms, generation_health
from suite.records import POINT, REFERENCE
from suite.runs.plan import Plan
from suite.runs.run_store import RunSpec


def health_table(root: Path, plan: Plan) -> pd.DataFrame:
    """One row per policy, the reference first: `POINT`, what `generation_health` says of its first sample per test prompt,
    and `alarms`, empty where nothing is wrong.
    """
    start = generation_health(_test_samples(root, plan.reference_evaluation))
    rows = [{"method": REFERENCE, "setting": "", "seed": 0, "step": 0, **start, "alarms": ""}]
    for run in plan.trained:
        for spec in run.evaluations:
            frame = _test_samples(root, spec)
            found = generation_health(frame)
            point = dict(zip(POINT, (run.method, run.label, run.seed, int(frame["step"].iloc[0])), strict=True))
            rows.append({**point, **found, "alarms": "; ".join(alarms(found, start))})
    return pd.DataFrame(rows)


def degenerate_samples(root: Path, plan: Plan, health: pd.DataFrame, *, policies: int = 3, prompts: int = 3) -> pd.DataFrame:
    """First test completions of the policies with alarms that repeat themselves most: `POINT`, prompt, text."""
    prompt_texts = pd.read_parquet(plan.reference_evaluation.inputs["test"].directory(root) / "prompts.parquet")
    texts = prompt_texts.set_index("prompt_id")["prompt_text"]
    worst = health[(health["alarms"] != "")].sort_values("repetition", ascending=False).head(policies)
    wanted = set(map(tuple, worst[POINT].itertuples(index=False, name=None)))
    parts = []
    for run in plan.trained:
        for spec in run.evaluations:
            frame = _test_samples(root, spec).head(prompts)
            point = (run.method, run.label, run.seed, int(frame["step"].iloc[0]))
            if point in wanted:
                named = dict(zip(POINT, point, strict=True))
                parts.append(frame.assign(**named, prompt=frame["prompt_id"].map(texts)))
    columns = [*POINT, "prompt_id", "prompt", "text", "reward", "kl_exact"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _test_samples(root: Path, spec: RunSpec) -> pd.DataFrame:
    frame = pd.read_parquet(spec.directory(root) / "samples.parquet")
    return frame[(frame["split"] == "test") & (frame["sample"] == 0)]
