"""Is your method better than the baselines? Check, search its learning rate, train, evaluate, compare: one command.

A method is a class with `train(data, reference, config, run) -> Policy` (suite/interfaces.py). It may name settings to be swept
in `grid`; its learning rate is searched on validation prompts among the candidates that the others had. All are measured on the
same test prompts; differences are paired by prompt and corrected for their number. Everything is cached and resumable.

Examples:
  suite compare --method my_pkg.my_module:MyMethod
  suite compare --method my_pkg.my_module:MyMethod --against dpo,ppo,best_of_n --seeds 0,1
  suite compare --method cdpo --profile smoke --dry-run
  suite compare --method cdpo --reuse-records results/imdb_frontier   baselines from their records
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from suite.analysis.rate_search import OFFLINE_CHANGES, RATES, Candidates, choose, plans_of, run_search, score_table, targets_of
from suite.analysis.records import Results
from suite.analysis.reuse import in_recorded_precision, read_reusable, reusable, same_pairs
from suite.cli.options import MachineOptions, Unnamed, file_name, parse_rates, parse_seeds
from suite.cli.ranges import Folder, Name
from suite.common.errors import LONGEST, UserError, shown
from suite.common.files import check_writable
from suite.common.machine import quiet_libraries
from suite.common.registry import MethodInfo, describe
from suite.engine.sweep import print_plan, run_all
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.report.frontier import write_frontier
from suite.report.page import bullets, code, page, table
from suite.report.sentiment import data_lines
from suite.report.verdict import verdict
from suite.study.plan import REFERENCE, Grid, Plan, plan_study
from suite.study.profiles import GRIDS, sentiment_study
from suite.study.run import Finished, run_study
from suite.study.study import Study, is_searched

if TYPE_CHECKING:
    from suite.check.checks import Check


@dataclass(frozen=True, kw_only=True)
class CompareOptions(MachineOptions):
    """Options of the comparison."""

    method: Name
    """A registered name, or module:Class, importable from here."""
    against: str = "dpo,ppo,best_of_n"
    """Comma-separated methods to compare with, at the settings of the frontier's grids."""
    profile: str = "embedded"
    """Models, data and sizes: smoke, embedded or paper."""
    seeds: str = "0"
    """Comma-separated training seeds."""
    rates: str = RATES
    """Learning rates to choose from, on validation prompts, as the others had. Not searched: methods whose rate is known, and
    in the paper profile, where nobody's is."""
    reuse_records: Folder | None = None
    """Results folder whose records give the baselines, if they are of the very runs that would be made here."""


def compare(options: Unnamed[CompareOptions]) -> int:
    """Plan, check, search, run, write; the exit code."""
    name, seeds, rates = options.method, parse_seeds(options.seeds), parse_rates(options.rates)
    info, baselines = describe(name), baselines_of(options.against, name)
    others = [describe(other).name for other in baselines]
    if info.name in (REFERENCE, *others):
        raise UserError(f"--method {name}: the name {info.name!r} is taken; give it a name of its own")
    study = sentiment_study(options.profile, **options.machine)
    recorded, folder = None, options.reuse_records
    if folder:
        found = read_reusable(folder)
        study = in_recorded_precision(study, found)
        recorded = reusable(folder, found, _plan(study, baselines, seeds, pool=True))
    own = {name: settings_of(name)}
    grid = own if recorded else {**own, **baselines}
    search = search_plans(name, info, study, rates)
    plan = _plan(study, grid, seeds, pool=recorded is None)
    means = options.means(study.device)
    print_plan(options.runs, [*targets_of(search), *plan.targets], means, whole=options.dry_run or options.verbose)
    if search:
        print(f"{len(search)} learning rates of {name} are tried first; the runs of {info.name} then take the best of them\n")
    if recorded:
        print(f"baselines from {folder}: {', '.join(baselines)}\n")
    if options.dry_run:
        return 0
    out = options.folder(f"compare_{file_name(name.rpartition(':')[2])}", study.profile)
    for place in (options.runs, out):
        check_writable(place)
    reused = ""
    if folder and recorded:
        drawn = [*plan.prompts.values(), *(source.pairs for source in plan.sources.values())]
        if run_all(options.runs, drawn, means):
            return 1
        drawn_elsewhere = "pairs drawn from the same reference for the same prompts on another machine, which rounds otherwise"
        pairs = "the pairs" if same_pairs(options.runs, plan, folder, recorded) else drawn_elsewhere
        reused = (
            f"The baselines' numbers are the records of {code(str(folder))}, of the same prompts; they were trained on {pairs}."
        )
    checks = run_checks(name)
    if failed := [check.name for check in checks if not check.ok]:
        raise UserError(f"--method {name}: {', '.join(failed)} failed; see suite check-method {name}")
    rate, scores = None, pd.DataFrame()
    if search:
        rate, scores = chosen_rate(options, search)
        study = replace(study, learning_rates={**study.learning_rates, name: rate})
        plan = _plan(study, grid, seeds, pool=recorded is None)

    def write(finished: Finished, place: Path) -> str:
        def who_won(results: Results, comparison: pd.DataFrame) -> str:
            return page(f"{info.name} against {', '.join(others)}", [
                ("", code(options.run_options().command)), ("", verdict(comparison, info.name)),
                ("", "![frontier](frontier.svg)"), ("Search", budget_section(name, study, {**own, **baselines}, scores, rate)),
                ("Checks", bullets(f"ok: {check.name.replace('_', ' ')}: {check.why}" for check in checks)),
                ("", "At [equal KL and equal compute](summary.md), with costs, health and every point; [samples](samples.md)."),
                ("", reused),
            ])  # fmt: skip

        title, data = f"{info.name} in the controlled sentiment experiment", data_lines(options.runs, finished.plan)
        return write_frontier(finished, place, title=title, data=data, against=info.name, recorded=recorded, verdict=who_won)

    return run_study(plan, write, out=out, options=options.run_options())


def _plan(study: Study, grid: Grid, seeds: Sequence[int], *, pool: bool) -> Plan:
    return plan_study(study, grid, RewardKLEvaluator(pool=pool), seeds=seeds, reference=Contender(REFERENCE))


def settings_of(name: str) -> Sequence[Mapping[str, Any]]:
    """The settings that are swept: those of the frontier's grids, else the method's own `grid`, else its defaults alone."""
    known = {**GRIDS["llama2"], **GRIDS["trl"], **GRIDS["variants"], **GRIDS["paper"], **GRIDS["default"]}
    return known.get(name) or list(describe(name).grid)


def baselines_of(against: str, method: str) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Baseline → its settings. Raises UserError if one is unknown, or if there is none but the method itself."""
    names = list(dict.fromkeys(name.strip() for name in against.split(",") if name.strip() and name.strip() != method))
    if not names:
        raise UserError(f"--against {against!r}: name at least one other method, for example dpo,ppo")
    return {name: settings_of(name) for name in names}


def run_checks(name: str) -> list[Check]:
    """Every check of a method, printed when it is done."""
    import torch

    from suite.check.checks import check_method

    quiet_libraries()
    threads, results = torch.get_num_threads(), []
    torch.set_num_threads(1)  # tiny models; and the same sums each time
    for result in check_method(name):
        word, why = "ok    " if result.ok else "FAILED", shown(result.why, LONGEST)
        print(f"{word} {result.name.replace('_', ' '):<20} {why}", flush=True)
        results.append(result)
    torch.set_num_threads(threads)
    return results


def search_plans(name: str, info: MethodInfo, study: Study, rates: Sequence[float]) -> Candidates:
    """The plans of the learning-rate search; none for a method that needs no search."""
    if not info.searched or is_searched(study, info) or study.rates_from is None:
        return {}
    return plans_of(study, name, settings_of(name)[:1], rates)


def chosen_rate(options: CompareOptions, search: Candidates) -> tuple[float, pd.DataFrame]:
    """Run the search; the rate that wins, and every candidate's score. Raises UserError if no rate gave a policy."""
    tables, _ = run_search(search, options.run_options())
    scores = score_table(pd.concat(tables, ignore_index=True))
    chosen = choose(scores)
    if not chosen:
        raise UserError(f"no learning rate of {options.method} gave a policy; see error.log of the runs above, or give --rates")
    return chosen[options.method], scores


def budget_section(name: str, study: Study, grid: Grid, scores: pd.DataFrame, rate: float | None) -> str:
    """What each method was given to choose from."""
    lines = [
        f"Every trained method keeps {study.optim.num_snapshots} policies of each run; of all its policies those on the hull "
        "of validation points count. Settings swept: "
        + ", ".join(f"{method} {len(settings)}" for method, settings in grid.items()) + ".",
    ]  # fmt: skip
    infos = {other: describe(other) for other in grid if other != name}
    trained = [other for other, info in infos.items() if not info.evaluated_from_pool]
    if trained and len(grid[name]) > 2 * max(len(grid[other]) for other in trained):
        lines.append(f"**{name} had more than twice the settings of any of the others to choose from.**")
    if rate is None:
        lines.append(f"The learning rate of {name} was not searched here (known from an earlier search, or nothing to search).")
    else:
        lines += [
            f"Learning rate of {name}: {rate:g}, of {len(scores)} candidates, by the area under the hull of validation points; "
            f"the searched ones of the others were chosen from {len(parse_rates(RATES))}, and those of most then had "
            f"{len(OFFLINE_CHANGES)} changes of another field to choose from.",
            "", table(scores.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)),
        ]  # fmt: skip
    if default := [other for other, info in infos.items() if info.searched and not is_searched(study, info)]:
        names = ", ".join(default)
        lines += ["", f"**Not searched**: {names}; trained at the rates of their own defaults, others might do better."]
    return "\n".join(lines)
