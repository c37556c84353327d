"""Choose every method's learning rate on validation prompts: the same candidates, data and snapshots for all.

A rate's score is the mean best validation reward within a KL budget, over budgets from 0 to 10 nats
(`suite.maths.frontier.mean_frontier_reward`), at the first setting of the default grid. No test prompt is touched. The
chosen rates stand in LEARNING_RATES of run_imdb_frontier.py.

Examples:
  python experiments/search_learning_rates.py                    the committed search (embedded models, CPU)
  python experiments/search_learning_rates.py --dry-run          what it would run
  python experiments/search_learning_rates.py --methods dpo --out results/dpo_rates   one method, beside the committed search
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from run_imdb_frontier import GRIDS, RESULTS, profiles

from suite.errors import UserError, did_you_mean, one_line_errors

MAX_KL = 10.0


@dataclass(frozen=True)
class Arguments:
    """Command line of the learning-rate search."""

    methods: str = "dpo,unlikelihood,preferred_ft,cdpo,robust_dpo,ipo_sum,ipo_mean,hinge,pl_dpo,welleck"
    """Comma-separated methods of the default grid and of the variants."""
    rates: str = "3e-6,1e-5,3e-5,1e-4,3e-4,1e-3"
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
    import pandas as pd

    from suite.figures.summary import with_interval
    from suite.maths.frontier import mean_frontier_reward
    from suite.runs.records import REFERENCE, collect, wide
    from suite.runs.run_store import check_writable, write_atomically
    from suite.runs.study import plan_study
    from suite.runs.sweep import available_cores, closure, print_plan, run_all

    grid = {**GRIDS["variants"], **GRIDS["default"]}
    base = replace(
        profiles()["embedded"], train_prompts=arguments.train_prompts, validation_prompts=arguments.validation_prompts
    )
    try:
        rates = [float(rate) for rate in arguments.rates.split(",")]
    except ValueError:
        raise UserError(f"--rates {arguments.rates!r}: expected comma-separated numbers, for example 1e-5,1e-4") from None
    plans = {}
    for method in (name.strip() for name in arguments.methods.split(",")):
        trained = [name for name, settings in grid.items() if "n" not in settings[0]]
        if method not in trained:
            raise UserError(f"method {method!r} cannot be searched; {did_you_mean(method, trained)}")
        for rate in rates:
            study = replace(base, learning_rates={method: rate})
            plans[method, rate] = plan_study(study, {method: grid[method][:1]}, [0], test=False)
    targets = [spec for plan in plans.values() for spec in plan.targets]
    print_plan(arguments.runs, targets)
    if arguments.dry_run:
        return 0
    for folder in (arguments.out, arguments.runs):
        check_writable(folder)
    outcomes = run_all(arguments.runs, targets, workers=arguments.workers or min(8, available_cores()))
    failed = {outcome.spec.key for outcome in outcomes}
    rows, tables = [], []
    for (method, rate), plan in plans.items():
        if not failed.isdisjoint(spec.key for spec in closure(plan.targets)):  # diverged, or what it needs failed
            rows.append({"method": method, "lr": f"{rate:g}", "score": float("nan")})
            continue
        records, _ = collect(arguments.runs, plan, experiment="learning_rates")
        table = wide(records, "validation")
        reference = table[table["method"] == REFERENCE].iloc[0]["reward"]
        points = table[table["method"] != REFERENCE]
        score = mean_frontier_reward(points["kl"], points["reward"], reference_reward=reference, max_kl=MAX_KL)
        best = points.loc[points["reward"].idxmax()]
        rows.append(
            {"method": method, "lr": f"{rate:g}", "score": score, "reference reward": reference,
             "best reward, 95 % over prompts": with_interval(best, "reward"), "its KL, nats": with_interval(best, "kl", 2),
             "n prompts": int(best["reward_n"])}
        )  # fmt: skip
        tables.append(records.assign(lr=rate))
    if not tables:
        return 1
    scores = pd.DataFrame(rows)
    best = scores.loc[scores.dropna(subset="score").groupby("method", sort=False)["score"].idxmax()]
    chosen = {row["method"]: float(row["lr"]) for _, row in best.iterrows()}
    records = pd.concat(tables, ignore_index=True)
    write_atomically(arguments.out / "records.csv", lambda path: records.to_csv(path, index=False, float_format="%.6g"))
    write_atomically(arguments.out / "chosen.json", lambda path: path.write_text(json.dumps(chosen, indent=1) + "\n"))
    page = (
        f"# Learning rates\n\n`{' '.join(['python experiments/search_learning_rates.py', *sys.argv[1:]])}`\n\n"
        f"Score: best validation reward within a KL budget, mean over budgets 0 to {MAX_KL:g} nats. {arguments.train_prompts} "
        f"training prefixes, {len(rates)} candidates for every method, one training seed. "
        "Scores are as uncertain as the rewards they are made of: neighbouring rates are often tied.\n\n"
        f"{scores.to_markdown(index=False, floatfmt='.4g')}\n\nChosen: {chosen}\n"
    )
    write_atomically(arguments.out / "summary.md", lambda path: path.write_text(page))
    print(page)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
