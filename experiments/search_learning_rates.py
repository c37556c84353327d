"""Choose every method's learning rate on validation prompts: the same candidates, data and snapshots for all.

A rate's score is the area under the hull of its snapshots, the mean validation reward over KL budgets from 0 to 10 nats
(`suite.maths.frontier.Frontier.area`), at the first setting of the default grid; the best score wins. For a method that is
steered to a target KL, the largest rate within 0.02 of the best (about the standard error) wins: it reaches the target
soonest. No test prompt is touched. The chosen rates stand in LEARNING_RATES of run_imdb_frontier.py. Methods of an earlier
search in the same folder stay in its tables; those searched again replace their rows. Without a method (--methods "") the
tables are made again from the records.

Examples:
  python experiments/search_learning_rates.py                    the committed search (embedded models, CPU)
  python experiments/search_learning_rates.py --dry-run          what it would run
  python experiments/search_learning_rates.py --methods ppo      one method, added to the committed search
"""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from run_imdb_frontier import GRIDS, RESULTS, profiles

from suite.errors import UserError, did_you_mean, one_line_errors
from suite.figures.summary import with_interval
from suite.maths.frontier import Frontier, hull_indices
from suite.records import POINT, REFERENCE, wide

MAX_KL = 10.0
RATES = "3e-6,1e-5,3e-5,1e-4,3e-4,1e-3"
TIED = 0.02


@dataclass(frozen=True)
class Arguments:
    """Command line of the learning-rate search."""

    methods: str = "dpo,unlikelihood,preferred_ft,cdpo,robust_dpo,ipo_sum,ipo_mean,hinge,pl_dpo,welleck,ppo,ppo_gt"
    """Comma-separated methods of the default grid and of the variants."""
    rates: str = RATES
    """Comma-separated candidates, the same for every method."""
    train_prompts: int = 512
    """Training prefixes; fewer than in the study, to be affordable."""
    validation_prompts: int = 128
    out: Path = RESULTS / "learning_rates"
    """Where records and the choice go."""
    runs: Path = RESULTS / "runs"
    """Where runs are kept, to be reused and resumed."""
    workers: int = 0
    """Processes that share the cores; 0: one per core up to 8."""
    dry_run: bool = False
    """Print the plan and stop."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.files import check_writable, write_atomically
    from suite.runs.sweep import print_plan, run_all, workers_for

    base = replace(
        profiles()["embedded"], train_prompts=arguments.train_prompts, validation_prompts=arguments.validation_prompts
    )
    rates, plans = parse_rates(arguments.rates), {}
    for method in (name.strip() for name in arguments.methods.split(",") if name):
        grid = first_settings()
        trained = [name for name, settings in grid.items() if "n" not in settings[0]]
        if method not in trained:
            raise UserError(f"method {method!r} cannot be searched; {did_you_mean(method, trained)}")
        plans |= plans_of(base, method, grid[method][0], rates)
    targets = [spec for plan in plans.values() for spec in plan.targets]
    workers = workers_for(arguments.workers, base.device)
    print_plan(arguments.runs, targets, workers=workers)
    if arguments.dry_run:
        return 0
    for folder in (arguments.out, arguments.runs):
        check_writable(folder)
    outcomes = run_all(arguments.runs, targets, workers=workers)
    failed = {outcome.spec.key for outcome in outcomes}
    tables = records_of(arguments.runs, plans, failed)
    path = arguments.out / "records.csv"
    if path.exists():
        earlier = pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"setting": ""})
        tables.insert(0, earlier[~earlier["searched"].isin([method for method, _ in plans])])
    if not tables:
        raise UserError(f"--methods: no method is named, and {path} holds no earlier search")
    records = pd.concat(tables, ignore_index=True)
    scores = score_table(records)
    if scores["score"].isna().all():
        raise UserError("no rate of any method gave a policy: all diverged or failed; see error.log of the runs named above")
    chosen = choose(scores, {name for name, settings in first_settings().items() if settings[0].get("target_kl")})
    write_atomically(path, lambda path: records.to_csv(path, index=False, float_format="%.6g"))
    write_atomically(arguments.out / "chosen.json", lambda path: path.write_text(json.dumps(chosen, indent=1) + "\n"))
    page = (
        f"# Learning rates\n\nLast command: `{' '.join(['python experiments/search_learning_rates.py', *sys.argv[1:]])}`\n\n"
        f"Score: area under the hull of the snapshots, mean validation reward over KL budgets 0 to {MAX_KL:g} nats. The best "
        f"wins; for a method steered to a target KL, the largest rate within {TIED} of the best. The same candidates and "
        f"prompts for every method, one training seed. Scores are as uncertain as the rewards they are made of: "
        f"neighbouring rates are often tied.\n\n{scores.to_markdown(index=False, floatfmt='.4g')}\n\nChosen: {chosen}\n"
    )
    write_atomically(arguments.out / "summary.md", lambda path: path.write_text(page))
    print(page)
    return 1 if failed else 0


def parse_rates(text: str) -> list[float]:
    """Comma-separated learning rates, each once.

    Raises:
        UserError: Something else.
    """
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < 1 for rate in rates) or len(set(rates)) < len(rates):
        raise UserError(f"--rates {text!r}: expected different numbers between 0 and 1, for example 1e-5,1e-4")
    return rates


def plans_of(base: Any, method: str, setting: Mapping[str, Any], rates: Sequence[float]) -> dict[tuple[str, float], Any]:
    """(method, rate) → the plan that tries the rate on validation prompts."""
    from suite.runs.plan import plan_study

    plans = {}
    for rate in rates:
        study = replace(base, learning_rates={**base.learning_rates, method: rate})
        plans[method, rate] = plan_study(study, {method: [setting]}, [0], test=False)
    return plans


def records_of(runs: Path, plans: Mapping[tuple[str, float], Any], failed: set[str]) -> list[pd.DataFrame]:
    """The records of finished plans, and a row without a metric for each that failed."""
    from suite.runs.collect import collect
    from suite.runs.sweep import closure

    tables = []
    for (method, rate), plan in plans.items():
        if not failed.isdisjoint(spec.key for spec in closure(plan.targets)):  # diverged, or what it needs failed
            tables.append(pd.DataFrame([{"searched": method, "lr": rate, "metric": None}]))
            continue
        records, _ = collect(runs, plan, experiment="learning_rates")
        tables.append(records.assign(searched=method, lr=rate, train_prompts=plan.study.train_prompts))
    return tables


def choose(scores: pd.DataFrame, steered: Container[str]) -> dict[str, float]:
    """The rate of the best score; of a method that is `steered` to a target KL, the largest of those tied with it."""
    chosen = {}
    for method, rows in scores.dropna(subset="score").groupby("method", sort=False):
        tied = TIED if method in steered else 0.0
        good = rows[rows["score"] >= rows["score"].max() - tied]
        chosen[str(method)] = float(good["lr"].astype(float).max() if tied else good.iloc[0]["lr"])
    return chosen


def first_settings() -> dict[str, Any]:
    """The grids that can be searched: those of every method that is trained."""
    return {**GRIDS["trl"], **GRIDS["variants"], **GRIDS["default"]}


def score_table(records: pd.DataFrame) -> pd.DataFrame:
    """One row per method and rate; a rate at which it diverged has no score."""
    rows = []
    for (method, rate), part in records.groupby(["searched", "lr"], sort=False):
        if part["metric"].isna().all():
            rows.append({"method": method, "lr": f"{rate:g}", "score": float("nan")})
            continue
        table = wide(part[[*POINT, "split", "metric", "value", "ci_low", "ci_high", "n"]], "validation")
        reference = table[table["method"] == REFERENCE].iloc[0]["reward"]
        points = table[table["method"] != REFERENCE]
        best = points.loc[points["reward"].idxmax()]
        kept = hull_indices(points["kl"], points["reward"], reference_reward=reference)
        hull = (np.append(zero, points[name].iloc[kept])[None, :, None] for name, zero in (("reward", reference), ("kl", 0.0)))
        rows.append(
            {"method": method, "lr": f"{rate:g}", "score": Frontier(*hull).area(MAX_KL), "reference reward": reference,
             "best reward, 95 % over prompts": with_interval(best, "reward"), "its KL, nats": with_interval(best, "kl", 2),
             "n prompts": int(best["reward_n"])}
        )  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main())
