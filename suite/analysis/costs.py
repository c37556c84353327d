"""What runs cost and how they went: tokens, compute, seconds, memory, and their training metrics.

Compute is counted in forward tokens: one token through the model without gradient is 1, with gradient and backward pass 3
(2 and 6 floating-point operations per parameter, Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1). It includes what a method
needs beforehand: the completions of the pairs and, for methods that learn from pairs, log π_ref of them (completion tokens);
the training of the reward model. Labels are free, but PPO-GT's calls of the gold reward count like those of a learned one.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.records import POINT
from suite.common.registry import describe
from suite.engine.store import RunSpec, facts
from suite.engine.workload import TRAINED
from suite.study.plan import Plan
from suite.study.specs import Source


def training_metrics(root: Path, plan: Plan) -> pd.DataFrame:
    """One row per (method, setting, seed, step): what each training run logged.

    And `displacement/chosen`, `displacement/rejected` [nats] = log π/π_ref, the implicit rewards over the run's β (1 if it has
    none), which can be compared between settings; of IPO by mean they are per token.
    """
    parts = []
    for contender, spec in plan.trained.items():
        rows = _metrics(root, spec).assign(method=contender.method, setting=contender.setting, seed=contender.seed)
        for side in ("chosen", "rejected"):
            if f"rewards/{side}" in rows:
                rows[f"displacement/{side}"] = rows[f"rewards/{side}"] / (spec.config["config"].get("beta") or 1.0)
        parts.append(rows)
    if not parts:
        return pd.DataFrame(columns=POINT)
    frame = pd.concat(parts, ignore_index=True)
    return frame[[*POINT, *frame.columns.difference(POINT, sort=False)]]


def cost_at(root: Path, plan: Plan, run: RunSpec, step: int) -> dict[str, Any]:
    """What it took to get to the snapshot at `step`: `tokens_sampled`, `tokens_scored` (without gradient), `tokens_trained`
    (with gradient), each with what the method needed beforehand; `compute` [forward tokens]; `run_seconds` of the whole run on
    one worker and `worker_peak_memory_mib`.
    """
    whole, needs, source = facts(root, run), describe(run.config["method"]).needs, plan.sources[run.config["seed"]]
    logged = _metrics(root, run)
    logged = logged[logged["step"] <= step].ffill()
    last = logged.iloc[-1].dropna() if len(logged) else {}
    names = {"tokens_sampled": "tokens_sampled", "tokens_scored": "tokens_scored", "tokens": "tokens_trained"}
    sampled, scored, trained = (float(last.get(name, whole.get(fact, 0))) for name, fact in names.items())
    if needs & {"pairs", "rankings", "reward"}:
        sampled += _sampled_for_pairs(root, source)
    if needs & {"pairs", "rankings"}:  # log π_ref of pairs that were drawn, or of those that people wrote
        scored += _sampled_for_pairs(root, source) + facts(root, source.pairs).get("tokens_scored", 0)
    if "reward" in needs:
        trained += _trained_for_reward(root, source)
    return {
        "tokens_sampled": int(sampled), "tokens_scored": int(scored), "tokens_trained": int(trained),
        "compute": int(sampled + scored + TRAINED * trained), "run_seconds": whole["seconds"],
        "worker_peak_memory_mib": whole["worker_peak_memory_mib"],
    }  # fmt: skip


def reward_model_compute(root: Path, source: Source) -> int:
    """Forward tokens that went into the reward model, the completions of the pairs included."""
    return int(_sampled_for_pairs(root, source) + TRAINED * _trained_for_reward(root, source))


def _trained_for_reward(root: Path, source: Source) -> int:
    return int(sum(_metrics(root, spec)["tokens"].iloc[-1] for spec in source.fitted.values()))


def _sampled_for_pairs(root: Path, source: Source) -> int:
    return sum(facts(root, spec).get("tokens_sampled", 0) for spec in source.pairs.inputs.values())


def _metrics(root: Path, spec: RunSpec) -> pd.DataFrame:
    path = spec.directory(root) / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    frame = pd.DataFrame(rows) if rows else pd.DataFrame({"step": pd.Series(dtype=int)})
    return frame.loc[:, ~frame.columns.str.startswith("seconds_")]  # another number each time: for the log alone
