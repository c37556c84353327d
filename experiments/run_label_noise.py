"""Reward at equal KL against the share of wrong labels: DPO, and variants for noisy labels at the right and at a wrong ε.

A variant's ε (`label_smoothing`) is the share of wrong labels that it expects; each is right at one level of noise and wrong at
the others. At every level each setting is compared with DPO on the same pairs, with simultaneous intervals over training seeds
and test prompts. Everything is cached and resumable. The records of a level are a folder of their own, so that the study
grows seed by seed, on several days or machines.

Examples:
  python experiments/run_label_noise.py --seeds 0,1,2
  python experiments/run_label_noise.py --seeds 0,1,2,3 --reuse-records results/label_noise        only the seed that is new
  python experiments/run_label_noise.py --profile smoke --levels 0,0.4 --methods dpo,cdpo
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from suite.analysis.equal_kl import compare, frontiers
from suite.analysis.gather import gather
from suite.analysis.records import Results, write_results, write_table, write_text
from suite.analysis.reuse import read_reusable, same_pairs, split, together
from suite.cli.options import MachineOptions, command, parse_numbers, parse_seeds, run_script
from suite.cli.ranges import Folder, Names
from suite.common.errors import UserError
from suite.common.files import check_writable
from suite.engine.sweep import print_plan, run_all
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.report.html.write import FILE, report_html
from suite.report.label_noise import draw, noise_page
from suite.report.study_folder import studies_in
from suite.study.plan import REFERENCE, Plan, plan_study
from suite.study.profiles import GRIDS, chosen_grid, sentiment_study
from suite.study.run import Finished, announce

AGAINST = "DPO beta = 0.1"


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the noise experiment."""

    profile: str = "embedded"
    """smoke, embedded or paper."""
    levels: str = "0,0.1,0.2,0.4"
    """Comma-separated shares of labels that are turned, from 0 to below 0.5."""
    methods: Names = ""
    """Comma-separated methods of the grid; all if empty, and always dpo."""
    seeds: str = "0,1,2"
    """Comma-separated training seeds: each draws its own prompts, completions and labels."""
    budgets: str = "1,3,6"
    """Comma-separated KLs in nats at which is compared."""
    reuse_records: Folder | None = None
    """A folder of this experiment: what it has of the same runs, by their keys, is not run again."""


def main(args: Arguments) -> int:
    seeds, levels, budgets = (
        parse_seeds(args.seeds),
        parse_numbers(args.levels, "--levels"),
        parse_numbers(args.budgets, "--budgets"),
    )
    if bad := [level for level in levels if not 0 <= level < 0.5]:
        raise UserError(f"--levels {bad[0]:g}: expected shares from 0 to below 0.5")
    grid = chosen_grid(GRIDS["noise"], f"dpo,{args.methods}" if args.methods else "")
    plans = {level: plan_of(args, grid, level, seeds) for level in levels}
    study = plans[levels[0]].study
    recorded = {level: records_in(args.reuse_records, level) for level in levels}
    parts = {level: split(plan, found) if (found := recorded[level]) else (plan, None) for level, plan in plans.items()}
    left = [plan for plan, _ in parts.values() if plan is not None]
    targets, means = [spec for plan in left for spec in plan.targets], args.means(study.device)
    print_plan(args.runs, targets, means, whole=args.dry_run or args.verbose)
    if args.dry_run:
        return 0
    out = args.folder("label_noise", args.profile)
    for folder in (out, args.runs):
        check_writable(folder)
    if begun := {folder_of(level): plan for level, (plan, _) in parts.items() if plan is not None}:
        announce(begun, args.run_options(), means.workers)
    failed = {o.spec.key for o in run_all(args.runs, targets, means)}
    tables = []
    for level, (plan, kept) in parts.items():
        results = None if plan is None else gather(Finished(plan.without(failed), args.run_options()), "label_noise")
        if kept is not None and plan is not None and args.reuse_records:
            same_pairs(args.runs, plan, args.reuse_records, kept)
        if kept is not None:
            results = kept if results is None else together(results, kept)
        assert results is not None, "what is not recorded is to be run"
        results.about.update(title=f"Reward-KL frontier, {level:.0%} of the labels turned", against="DPO", page_samples=0)
        write_results(out / folder_of(level), results)
        tables.append(compared(results, budgets).assign(noise=level))
    table = pd.concat(tables)
    write_table(out / "label_noise.csv", table)
    write_text(out / FILE, report_html(studies_in(out)))
    draw(out, out)
    text = noise_page(table, command=command(), seeds=seeds, prompts=study.test_prompts)
    write_text(out / "summary.md", text)
    print(text)
    return 1 if failed else 0


def plan_of(args: Arguments, grid, level: float, seeds: list[int]) -> Plan:
    """The runs at one level of noise."""
    study = sentiment_study(args.profile, **args.machine, label_noise=level)
    return plan_study(study, grid, RewardKLEvaluator(pool=False), seeds=seeds, reference=Contender(REFERENCE))


def folder_of(level: float) -> str:
    """Where the records of a level of noise lie."""
    return f"noise-{level:g}"


def records_in(folder: Path | None, level: float) -> Results | None:
    """What an earlier run of the experiment has of a level, if it has any."""
    there = folder is not None and (folder / folder_of(level) / "study.json").exists()
    return read_reusable(folder / folder_of(level)) if folder is not None and there else None


def compared(results: Results, budgets: list[float]) -> pd.DataFrame:
    """Every setting beside DPO, as if each were a method of its own."""
    records, numbers = (
        table.assign(method=(table["method"] + " " + table["setting"]).str.strip(), setting="")
        for table in (results.records, results.measurements)
    )
    unsearched = set(records.loc[results.records["method"].isin(results.about["unsearched"]), "method"])
    return compare(frontiers(records, numbers), against=AGAINST, budgets=budgets, unsearched=unsearched)


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
