"""The search of learning rates on validation prompts: as many candidates, the same data, length and snapshots for every method;
and as many for the reward model, by its accuracy on held-out pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.gather import gather
from suite.analysis.records import PLACE, POINT, wide
from suite.common.registry import describe
from suite.engine.making import closure
from suite.engine.store import RunSpec, reading
from suite.engine.sweep import run_all
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.maths.frontier import area_grid, hull_indices, reward_at_kl
from suite.maths.statistics import mean_interval
from suite.study.plan import REFERENCE, Plan, plan_study
from suite.study.run import Finished, Options
from suite.study.specs import Specs, label_of
from suite.study.study import Study

RATES = "3e-6,1e-5,3e-5,1e-4,3e-4"
REWARD_MODEL, REWARD_MODEL_RATES = "reward_model", "3e-5,1e-4,3e-4,1e-3"
PPO_CHANGES: list[dict[str, Any]] = [
    {"samples_per_step": 64}, {"samples_per_step": 256}, {"epochs_per_step": 1}, {"epochs_per_step": 4}, {"value_lr": 1e-4},
    {"value_lr": 1e-2},
]  # fmt: skip
"""Changes of one field each that are tried of PPO at its best rate, with as many samples in all."""
OFFLINE_CHANGES: list[dict[str, Any]] = [
    {"num_epochs": 2}, {"num_epochs": 4}, {"batch_size": 16}, {"batch_size": 32}, {"batch_size": 128}, {"max_grad_norm": 1.0},
]  # fmt: skip
"""As many that are tried of every method that learns from pairs."""
MAX_KL = 10.0


def changes_of(method: str) -> list[dict[str, Any]]:
    """The changes of one field that are tried of a method at its best rate; of PPO-GT none, it takes what is best for PPO."""
    offline = describe(method).needs & {"pairs", "rankings"}
    return PPO_CHANGES if method == "ppo" else OFFLINE_CHANGES if offline else []


Candidates = Mapping[tuple[str, float, str], Plan]
"""(method, rate, setting in words) → the plan that tries them."""


def plans_of(
    base: Study, method: str, settings: Sequence[Mapping[str, Any]], rates: Sequence[float]
) -> dict[tuple[str, float, str], Plan]:
    """A plan on validation prompts for every rate and setting; no test prompt is touched."""
    evaluator = RewardKLEvaluator(splits=("validation",), pool=False)
    plans = {}
    for rate in rates:
        study = replace(base, learning_rates={**base.learning_rates, method: rate})
        for setting in settings:
            plan = plan_study(study, {method: [setting]}, evaluator, reference=Contender(REFERENCE))
            plans[method, rate, label_of(setting)] = plan
    return plans


def search_reward_model(base: Study, rates: Sequence[float], options: Options) -> pd.DataFrame:
    """Fit the reward model with every rate: one row each, `value` its accuracy on held-out pairs with an interval over their
    prompts; no value where it failed.
    """
    specs = {
        rate: Specs(replace(base, reward_model=replace(base.reward_model, lr=rate))).source(0).reward_model for rate in rates
    }
    failed = {o.spec.key for o in run_all(options.runs, list(specs.values()), options.means(base.device))}
    rows: list[dict[str, Any]] = []
    for rate, spec in specs.items():
        names = {"searched": REWARD_MODEL, "lr": rate, "tried": "", "metric": None}
        rows.append({**names, "train_prompts": base.train_size})
        if spec.key not in failed:
            with reading(options.runs, [spec]):
                held_out = pd.read_parquet(spec.directory(options.runs) / "held_out.parquet")
            found = mean_interval(held_out.groupby("prompt_id", sort=False)["right"].mean(), limits=(0.0, 1.0))
            accuracy = {"value": found.mean, "ci_low": found.low, "ci_high": found.high, "n": found.n}
            rows[-1] |= {"metric": "accuracy", "split": "held out", **accuracy}
    return pd.DataFrame(rows)


def targets_of(plans: Candidates) -> list[RunSpec]:
    """The runs that a search asks for."""
    return [spec for plan in plans.values() for spec in plan.targets]


def run_search(plans: Candidates, options: Options) -> tuple[list[pd.DataFrame], bool]:
    """Make what is missing; the records of every plan, a row without a metric for one that failed, and whether any did."""
    device = next(iter(plans.values())).study.device if plans else "cpu"
    outcomes = run_all(options.runs, targets_of(plans), options.means(device))
    failed, tables = {outcome.spec.key for outcome in outcomes}, []
    for (method, rate, tried), plan in plans.items():
        names = {"searched": method, "lr": rate, "tried": tried}
        if not failed.isdisjoint(spec.key for spec in closure(plan.targets)):  # diverged, or what it needs failed
            tables.append(pd.DataFrame([{**names, "metric": None}]))
            continue
        records = gather(Finished(plan, options), "learning_rates").records
        tables.append(records.assign(**names, train_prompts=plan.study.train_size))
    return tables, bool(failed)


def score_table(records: pd.DataFrame) -> pd.DataFrame:
    """One row per method, rate and setting: `method`, `lr`, `setting`, `score` (area under the hull; NaN where it diverged),
    `reference` reward, `reward` and `kl` of the best policy with `…_low` and `…_high`, and `n` prompts. Of a reward model score
    and `reward` are its accuracy.
    """
    rows = []
    for (method, rate, tried), part in records.groupby(["searched", "lr", "tried"], sort=False):
        names = {"method": method, "lr": float(rate), "setting": tried}
        if part["metric"].isna().all():
            rows.append({**names, "score": float("nan")})
            continue
        if method == REWARD_MODEL:
            row = part.iloc[0]
            bounds = {"reward": row["value"], "reward_low": row["ci_low"], "reward_high": row["ci_high"], "n": int(row["n"])}
            rows.append({**names, "score": row["value"], **bounds})
            continue
        places = [name for name in PLACE if name in part]
        table = wide(part[[*POINT, *places, "split", "metric", "value", "ci_low", "ci_high", "n"]], "validation")
        reference = float(table[table["method"] == REFERENCE].iloc[0]["reward"])
        points = table[table["method"] != REFERENCE]
        best = points.loc[points["reward"].idxmax()]
        kept = hull_indices(points["kl"], points["reward"], reference_reward=reference)
        kl, reward = np.append(0.0, points["kl"].iloc[kept]), np.append(reference, points["reward"].iloc[kept])
        score = float(reward_at_kl(kl, reward, area_grid(0.0, MAX_KL)).mean())
        bounds = {f"{name}{end}": best[f"{name}{end}"] for name in ("reward", "kl") for end in ("", "_low", "_high")}
        rows.append({**names, "score": score, "reference": reference, **bounds,
                     "n": int(best["reward_n"])})  # fmt: skip
    return pd.DataFrame(rows)


def choose(scores: pd.DataFrame) -> dict[str, float]:
    """The rate of each method's best score, by name."""
    best = best_of(scores)
    return dict(zip(best["method"], best["lr"], strict=True))


def best_of(scores: pd.DataFrame) -> pd.DataFrame:
    """The row of each method with the best score; of scores that are equal to six digits the one with the largest rate."""
    known = scores.dropna(subset="score").assign(score=lambda table: table["score"].round(6))
    ordered = known.sort_values(["score", "lr"], ascending=False, kind="stable").drop_duplicates("method")
    return ordered.set_index("method").loc[list(dict.fromkeys(known["method"]))].reset_index()
