"""Is your method better than the baselines? Check, search its learning rate, train, evaluate, compare: one command.

A method is a class with `train(data, reference, config, run) -> Policy` (suite/interfaces.py). It may name settings to be swept
in `grid`; its learning rate is searched on validation prompts among the candidates that the others had. All are measured on the
same test prompts; differences are paired by prompt and corrected for their number. Everything is cached and resumable.

Examples:
  python experiments/compare_method.py --method my_pkg.my_module:MyMethod
  python experiments/compare_method.py --method my_pkg.my_module:MyMethod --against dpo,ppo,best_of_n --seeds 0,1
  python experiments/compare_method.py --method cdpo --profile smoke --dry-run
  python experiments/compare_method.py --method cdpo --reuse-records results/imdb_frontier   baselines from their records
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro
from run_imdb_frontier import GRIDS, RESULTS, chosen_study, parse_seeds
from run_imdb_frontier import Arguments as Frontier
from search_learning_rates import RATES, choose, parse_rates, plans_of, records_of, score_table

from suite.errors import UserError, one_line_errors

SEARCH_PROMPTS = {"embedded": (512, 128)}
"""Training and validation prompts of the others' search, per profile; the study's own where none is named."""


@dataclass(frozen=True)
class Arguments:
    """Command line of the comparison."""

    method: str
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
    reuse_records: Path | None = None
    """Results folder whose records give the baselines, if they are of the very runs that would be made here."""
    out: Path | None = None
    """Where records, figures and the verdict go. Default: results/compare_METHOD, with the profile's name if it is another."""
    runs: Path = RESULTS / "runs"
    """Where runs are kept, to be reused and resumed."""
    micro_batch_size: int | None = None
    """Examples per forward pass of training: changes memory and not the result. Default: the profile's."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send training metrics there; TensorBoard reads RUNS/tensorboard, W&B stays offline without WANDB_API_KEY."""
    workers: int = 0
    """Processes that share the cores; 0: one per core up to 8, 1 on a GPU."""
    device: str = "auto"
    """cpu, cuda or auto."""
    dry_run: bool = False
    """Print the plan and stop."""


def settings_of(name: str) -> Sequence[Mapping[str, Any]]:
    """The settings that are swept: those of the frontier's grids, else the method's own `grid`, else its defaults alone."""
    from suite.registry import load_method

    known = {**GRIDS["trl"], **GRIDS["variants"], **GRIDS["paper"], **GRIDS["default"]}
    return known.get(name) or list(getattr(load_method(name), "grid", ()) or [{}])


def baselines_of(against: str, method: str) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Baseline → its settings.

    Raises:
        UserError: Unknown, or none but the method itself.
    """
    names = list(dict.fromkeys(name.strip() for name in against.split(",") if name.strip() and name.strip() != method))
    if not names:
        raise UserError(f"--against {against!r}: name at least one other method, for example dpo,ppo")
    return {name: settings_of(name) for name in names}


def check(name: str) -> list[str]:
    """Run `suite check-method`; one line per check.

    Raises:
        UserError: A check failed.
    """
    import torch

    from suite.check_method import check_method
    from suite.runs.sweep import quiet_libraries

    quiet_libraries()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny models
    lines, failed = [], []
    for result in check_method(name):
        lines.append(f"{'ok' if result.ok else 'FAILED'}: {result.name.replace('_', ' ')}: {result.why}")
        print(lines[-1], flush=True)
        failed += [result.name] if not result.ok else []
    torch.set_num_threads(threads)
    if failed:
        raise UserError(f"--method {name}: {', '.join(failed)} failed; see suite check-method {name}")
    return lines


def search_plans(name: str, method: Any, study: Any, rates: Sequence[float]) -> dict[tuple[str, float], Any]:
    """The plans of the learning-rate search; none for a method that needs no search."""
    from suite.registry import resolve

    searched = {resolve(known) for known in study.learning_rates}
    if method.evaluated_from_pool or resolve(name) in searched or not study.learning_rates:
        return {}
    if "optim" not in method.Config.__dataclass_fields__:
        return {}
    sizes = SEARCH_PROMPTS.get(study.profile, (study.train_prompts, study.validation_prompts))
    base = replace(study, train_prompts=sizes[0], validation_prompts=sizes[1])
    return plans_of(base, name, settings_of(name)[0], rates)


def budget_page(name: str, study: Any, grid: Mapping[str, Sequence[Any]], scores: pd.DataFrame, rate: float | None) -> str:
    """What each method was given to choose from."""
    from suite.registry import load_method, resolve

    lines = [
        "Every trained method keeps "
        f"{study.optim.num_snapshots} policies of each run; of all its policies those on the hull of validation points count. "
        "Settings swept: " + ", ".join(f"{method} {len(settings)}" for method, settings in grid.items()) + ".",
    ]  # fmt: skip
    trained = [method for method in grid if method != name and not load_method(method).evaluated_from_pool]
    if trained and len(grid[name]) > 2 * max(len(grid[method]) for method in trained):
        lines.append(f"**{name} had more than twice the settings of any of the others to choose from.**")
    if rate is None:
        lines.append(f"The learning rate of {name} was not searched here (known from an earlier search, or nothing to search).")
    else:
        lines.append(
            f"Learning rate of {name}: {rate:g}, of {len(scores)} candidates, by the area under the hull of validation points; "
            f"the searched ones of the others were chosen from {len(parse_rates(RATES))}."
        )
        lines += ["", scores.to_markdown(index=False, floatfmt=".4g")]
    searched = {resolve(known) for known in study.learning_rates}
    default = [
        other for other in grid
        if other != name and resolve(other) not in searched and not load_method(other).evaluated_from_pool
    ]  # fmt: skip
    if default:
        names = ", ".join(default)
        lines += ["", f"**Not searched**: {names}; trained at the rates of their own defaults, others might do better."]
    return "\n".join(lines)


def chosen_rate(
    arguments: Arguments, search: Mapping[tuple[str, float], Any], steered: bool, workers: int
) -> tuple[float, pd.DataFrame]:
    """Run the search; the rate that wins, and every candidate's score.

    Raises:
        UserError: No rate gave a policy.
    """
    from suite.runs.sweep import run_all

    targets = [spec for plan in search.values() for spec in plan.targets]
    outcomes = run_all(arguments.runs, targets, workers=workers, tracker=arguments.tracker)
    failed = {outcome.spec.key for outcome in outcomes}
    scores = score_table(pd.concat(records_of(arguments.runs, search, failed), ignore_index=True))
    chosen = choose(scores, {arguments.method} if steered else set())
    if not chosen:
        raise UserError(
            f"no learning rate of {arguments.method} gave a policy; see error.log of the runs named above, or give --rates"
        )
    return chosen[arguments.method], scores


def verdict_page(
    arguments: Arguments, words: str, names: tuple[str, Sequence[str]], command: str, search: str, checks: Sequence[str],
    pairs: str,
) -> str:  # fmt: skip
    """`verdict.md`; `pairs`: what the recorded baselines were trained on."""
    parts = [
        f"# {names[0]} against {', '.join(names[1])}", f"`{command}`", words, "![frontier](frontier.png)",
        f"## Search\n\n{search}", "## Checks\n\n" + "\n".join(f"- {line}" for line in checks),
        "At [equal KL and equal compute](summary.md), with costs, health and every point; [samples](samples.md).",
    ]  # fmt: skip
    if arguments.reuse_records:
        parts.append(
            f"The baselines' numbers are the records of `{arguments.reuse_records}`, measured on the same prompts; they were "
            f"trained on {pairs}."
        )
    return "\n\n".join(parts) + "\n"


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.figures.report import sentiment_heading, write_report
    from suite.figures.results import Results
    from suite.figures.verdict import verdict
    from suite.files import check_writable, write_atomically
    from suite.records import REFERENCE
    from suite.registry import load_method
    from suite.runs.plan import plan_study
    from suite.runs.reuse import in_recorded_precision, read_recorded, same_pairs
    from suite.runs.sweep import closure, print_plan, run_all, workers_for

    name, seeds, rates = arguments.method, parse_seeds(arguments.seeds), parse_rates(arguments.rates)
    method, baselines, own = load_method(name), baselines_of(arguments.against, name), {name: settings_of(name)}
    others = [load_method(other).name for other in baselines]
    if method.name in (REFERENCE, *others):
        raise UserError(f"--method {name}: the name {method.name!r} is taken; give it a name of its own")
    wanted = {field: getattr(arguments, field) for field in ("profile", "device", "micro_batch_size", "workers")}
    study = chosen_study(Frontier(**wanted))
    recorded = None
    if arguments.reuse_records:
        study = in_recorded_precision(study, arguments.reuse_records)
        recorded = read_recorded(arguments.reuse_records, plan_study(study, baselines, seeds))
    grid = own if recorded else {**own, **baselines}
    search = search_plans(name, method, study, rates)
    plan = plan_study(study, grid, seeds, pool=recorded is None)
    workers = workers_for(arguments.workers, study.device)
    searched = [spec for candidate in search.values() for spec in candidate.targets]
    print_plan(arguments.runs, [*searched, *plan.targets], workers=workers)
    if search:
        print(f"{len(search)} learning rates of {name} are tried first; the runs of {method.name} then take the best of them\n")
    if recorded:
        print(f"baselines from {arguments.reuse_records}: {', '.join(baselines)}\n")
    if arguments.dry_run:
        return 0
    short = "".join(c if c.isalnum() else "_" for c in name.rpartition(":")[2])
    out = arguments.out or RESULTS / f"compare_{short}{'' if study.profile == 'embedded' else f'_{study.profile}'}"
    for folder in (arguments.runs, out):
        check_writable(folder)
    pairs = "the pairs"
    if arguments.reuse_records:
        drawn = [*(plan.reference_evaluation.inputs[split] for split in ("validation", "test")), plan.pairs]
        if run_all(arguments.runs, drawn, workers=workers):
            return 1
        if not same_pairs(arguments.runs, plan, arguments.reuse_records):
            pairs = "pairs drawn from the same reference for the same prompts on another machine, which rounds otherwise"
    checks = check(name)
    rate, scores = None, pd.DataFrame()
    if search:
        first = next(iter(search.values())).trained[0].train.config["config"]
        rate, scores = chosen_rate(arguments, search, bool(first.get("target_kl")), workers)
        study = replace(study, learning_rates={**study.learning_rates, name: rate})
        plan = plan_study(study, grid, seeds, pool=recorded is None)
    outcomes = run_all(arguments.runs, plan.targets, workers=workers, tracker=arguments.tracker)
    failed = {outcome.spec.key for outcome in outcomes}
    plan = plan.without(failed)
    if failed & {spec.key for spec in closure(plan.targets)}:  # what everything needs
        return 1
    command = shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    heading = [f"# {method.name} in the controlled sentiment experiment", *sentiment_heading(arguments.runs, plan)[1:]]
    write_report(
        arguments.runs, plan, out=out, workers=workers, command=command, heading=heading, against=method.name, recorded=recorded
    )
    page = verdict_page(
        arguments, verdict(Results(out).comparisons, method.name), (method.name, others), command,
        budget_page(name, study, {**own, **baselines}, scores, rate), checks, pairs,
    )  # fmt: skip
    write_atomically(out / "verdict.md", lambda path: path.write_text(page))
    print(f"\n{page}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
