"""Choose every method's learning rate on validation prompts: the same candidates, data and snapshots for all.

A rate's score is the area under the hull of its snapshots, the mean validation reward over KL budgets from 0 to 10 nats
(`suite.maths.frontier.Frontier.area`), at the first setting of the default grid; the best score wins. For a method that is
steered to a target KL, the largest rate within 0.02 of the best (about the standard error) wins: it reaches the target
soonest. The reward model's score is its accuracy on held-out pairs. No test prompt is touched. The chosen rates stand in
suite/study/profiles.py. Methods of an earlier search in the same folder stay in its tables; those searched again replace their
rows. Without a method (--methods "") the tables are made again from the records.

Examples:
  python experiments/search_learning_rates.py                    the committed search (embedded models, CPU)
  python experiments/search_learning_rates.py --dry-run          what it would run
  python experiments/search_learning_rates.py --methods ppo      one method, added to the committed search
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.rate_search import (
    RATES,
    REWARD_MODEL,
    choose,
    plans_of,
    run_search,
    score_table,
    search_reward_model,
    targets_of,
)
from suite.analysis.records import write_table, write_text
from suite.cli.options import RESULTS, MachineOptions, command, parse_rates, run_script
from suite.common.errors import UserError, did_you_mean
from suite.common.files import check_writable
from suite.common.machine import workers_for
from suite.common.registry import describe
from suite.engine.sweep import print_plan
from suite.report.rates import rates_page
from suite.study.plan import Plan
from suite.study.profiles import GRIDS, sentiment_study


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the learning-rate search."""

    methods: str = "reward_model,dpo,unlikelihood,preferred_ft,cdpo,robust_dpo,ipo_sum,ipo_mean,hinge,pl_dpo,welleck,ppo,ppo_gt"
    """Comma-separated methods of the default grid and of the variants, and reward_model."""
    rates: str = RATES
    """Comma-separated candidates, the same for every method."""
    train_prompts: int = 512
    """Training prefixes; fewer than in the study, to be affordable."""
    validation_prompts: int = 128
    out: Path = RESULTS / "learning_rates"  # type: ignore[assignment]
    """Where records and the choice go."""


def main(args: Arguments) -> int:
    sizes: dict[str, Any] = {"train_size": args.train_prompts, "validation_prompts": args.validation_prompts}
    base = sentiment_study("embedded", **args.machine, **sizes)
    rates, plans = parse_rates(args.rates), dict[tuple[str, float], Plan]()
    grid = {**GRIDS["trl"], **GRIDS["variants"], **GRIDS["default"]}
    known = [name for name in grid if describe(name).searched]
    methods = [name.strip() for name in args.methods.split(",") if name]
    for method in (name for name in methods if name != REWARD_MODEL):
        if method not in known:
            raise UserError(f"method {method!r} cannot be searched; {did_you_mean(method, known)}")
        plans |= plans_of(base, method, grid[method][0], rates)
    workers = workers_for(args.workers, base.device)
    print_plan(args.runs, targets_of(plans), workers=workers, whole=args.dry_run or args.verbose)
    if args.dry_run:
        return 0
    for folder in (args.out, args.runs):
        check_writable(folder)
    options, path, tables = args.run_options(), args.out / "records.csv", []
    if REWARD_MODEL in methods:
        tables.append(search_reward_model(base, rates, options, workers=workers))
    found, failed = run_search(plans, options, workers=workers)
    tables += found
    if path.exists():
        earlier = pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"setting": ""})
        tables.insert(0, earlier[~earlier["searched"].isin(methods)])
    if not tables:
        raise UserError(f"--methods: no method is named, and {path} holds no earlier search")
    records = pd.concat(tables, ignore_index=True).fillna({"panel": "frontier", "x": 0.0, "temperature": 1.0})  # of older ones
    scores = score_table(records)
    if scores["score"].isna().all():
        raise UserError("no rate of any method gave a policy: all diverged or failed; see error.log of the runs named above")
    chosen = choose(scores, {name for name, settings in grid.items() if settings[0].get("target_kl")})
    write_table(path, records)
    write_text(args.out / "chosen.json", json.dumps(chosen, indent=1) + "\n")
    text = rates_page(command(), scores, chosen)
    write_text(args.out / "summary.md", text)
    print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
