"""Choose every method's learning rate on validation prompts: as many candidates, the same data and snapshots for all.

A candidate's score is the area under the hull of its snapshots, the mean validation reward over KL budgets 0 to 10 nats, at
one setting of each method and at the length at which the study trains; the best score wins, for every method alike. At its
best rate six changes of one field are tried too: of PPO samples per step, passes and value rate; of methods that learn from
pairs passes, batch and gradient clip. PPO-GT takes what is best for PPO. The reward model's score is its accuracy on held-out
pairs. No test prompt is touched. The chosen rates stand in suite/study/profiles.py. Methods of an earlier search in
the same folder stay in its tables; those searched again replace their rows. Without a method (--methods "") the tables are made
again from the records.

Examples:
  python experiments/search_learning_rates.py                    the committed search (embedded models, CPU)
  python experiments/search_learning_rates.py --dry-run          what it would run
  python experiments/search_learning_rates.py --methods ppo      one method, added to the committed search
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from suite.analysis.rate_search import (
    RATES,
    REWARD_MODEL,
    REWARD_MODEL_RATES,
    best_of,
    changes_of,
    plans_of,
    run_search,
    score_table,
    search_reward_model,
    targets_of,
)
from suite.analysis.records import write_table, write_text
from suite.cli.options import RESULTS, MachineOptions, command, parse_rates, run_script
from suite.cli.ranges import Count, Folder, Names
from suite.common.errors import UserError, did_you_mean, listed
from suite.common.files import check_writable
from suite.common.registry import describe
from suite.engine.sweep import print_plan
from suite.report.rates import rates_page
from suite.study.plan import Plan
from suite.study.profiles import GRIDS, sentiment_study


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the learning-rate search."""

    methods: Names = "reward_model,dpo,unlikelihood,preferred_ft,ppo,ppo_gt"
    """Comma-separated methods of the grids, and reward_model."""
    rates: str = RATES
    """Comma-separated candidates, the same for every method."""
    reward_model_rates: str = REWARD_MODEL_RATES
    """The reward model's."""
    validation_prompts: Count = 256
    out: Folder = RESULTS / "learning_rates"  # type: ignore[assignment]
    """Where records and the choice go."""


def main(args: Arguments) -> int:
    study = sentiment_study("embedded", **args.machine, validation_prompts=args.validation_prompts)
    base = replace(study, settings={})  # those of PPO are among what is searched
    rates, plans = parse_rates(args.rates), dict[tuple[str, float, str], Plan]()
    grid = {**GRIDS["llama2"], **GRIDS["trl"], **GRIDS["variants"], **GRIDS["default"]}
    known = [name for name in grid if describe(name).searched]
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    for method in (name for name in methods if name != REWARD_MODEL):
        if method not in known:
            raise UserError(f"method {method!r} cannot be searched; {did_you_mean(method, known)}")
        plans |= plans_of(base, method, grid[method][:1], rates)
    reward_model_rates = parse_rates(args.reward_model_rates, "--reward-model-rates")
    path = args.out / "records.csv"
    earlier = earlier_search(path, methods)
    if not methods and earlier is None:
        raise UserError(f"--methods: no method is named, and {path} holds no earlier search")
    print_plan(args.runs, targets_of(plans), args.means(base.device), whole=args.dry_run or args.verbose)
    if args.dry_run:
        return 0
    for folder in (args.out, args.runs):
        check_writable(folder)
    options, tables = args.run_options(), list[pd.DataFrame]()
    if REWARD_MODEL in methods:
        tables.append(search_reward_model(base, reward_model_rates, options))
    found, failed = run_search(plans, options)
    tables += found
    best = best_of(score_table(pd.concat(found, ignore_index=True))).set_index("method")["lr"] if found else {}
    changed = dict[tuple[str, float, str], Plan]()
    for method, rate in best.items():
        tried = [{**grid[method][0], **change} for change in changes_of(method)]
        changed |= plans_of(base, method, tried, [rate])
    if changed:
        more, diverged = run_search(changed, options)
        tables, failed = tables + more, failed or diverged
    if (earlier := earlier_search(path, methods)) is not None:  # another search may have ended meanwhile
        tables.insert(0, earlier)
    records = pd.concat(tables, ignore_index=True)
    scores = score_table(records)
    if scores["score"].isna().all():
        raise UserError("no rate of any method gave a policy: all diverged or failed; see error.log of the runs named above")
    chosen = {
        row["method"]: {"lr": row["lr"], "setting": row["setting"], "score": row["score"]}
        for row in best_of(scores).to_dict("records")
    }
    write_table(path, records)
    write_text(args.out / "chosen.json", json.dumps(chosen, indent=1) + "\n")
    text = rates_page(command(), scores, {name: f"{best['lr']:g} {best['setting']}".strip() for name, best in chosen.items()})
    write_text(args.out / "summary.md", text)
    print(text)
    return 1 if failed else 0


def earlier_search(path: Path, methods: Sequence[str]) -> pd.DataFrame | None:
    """The rows of an earlier search whose methods are not searched again; None where there was none. Raises UserError if it
    is the table of something else.
    """
    if not path.exists():
        return None
    try:
        found = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ValueError as error:  # empty, or no table
        raise UserError(f"{path}: cannot be read ({error}); move it, or choose another folder with --out") from error
    if "searched" not in found:
        raise UserError(f"{path}: holds no search but {listed(found.columns)}; choose another folder with --out")
    texts = [name for name in ("setting", "tried") if name in found]
    return found[~found["searched"].isin(methods)].fillna(dict.fromkeys(texts, ""))


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
