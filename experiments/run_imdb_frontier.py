"""The reward-KL frontier of the controlled sentiment experiment (Fig. 2 left of Rafailov et al. 2023).

Trains every method on preferences over its own reference's completions, measures gold reward and KL(π‖π_ref) on test
prompts, and draws the frontier. Everything is cached and resumable: the same command goes on where it was stopped, and a
finished sweep redraws in seconds.

Examples:
  python experiments/run_imdb_frontier.py                                  embedded models, no network, CPU, minutes
  python experiments/run_imdb_frontier.py --profile smoke                  the whole pipeline in about a minute
  python experiments/run_imdb_frontier.py --dry-run                        every run, cached or not
  python experiments/run_imdb_frontier.py --grid core --seeds 1,2,3,4,5    a study that gives a verdict: five seeds
  python experiments/run_imdb_frontier.py --grid paper --seeds 0,1,2       the paper's grid, three training seeds
  python experiments/run_imdb_frontier.py --label-noise 0.2                one label in five is turned
  python experiments/run_imdb_frontier.py --longer 4                       every run four times as long
  python experiments/run_imdb_frontier.py --grid core --seeds 1,2,3,4,5,6 --reuse-records results/imdb_frontier_core_grid
                                                                           one seed more: what is recorded is not run again
  python experiments/run_imdb_frontier.py --methods dpo,best_of_n          some methods
  python experiments/run_imdb_frontier.py --methods dpo,my_pkg.kto:KTO     your own method in the race
  python experiments/run_imdb_frontier.py --reviews stanfordnlp/imdb       prefixes of real reviews
  python experiments/run_imdb_frontier.py --profile paper --grid paper     gpt2-large and siebert's classifier, GPU, network
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from suite.analysis.reuse import RUN, in_recorded_precision, read_reusable, same_pairs, split
from suite.cli.options import MachineOptions, parse_seeds, run_script
from suite.cli.ranges import Count, Folder, Name, Names, Share
from suite.common.errors import UserError
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.report.deviations import deviations, write_deviations
from suite.report.frontier import write_frontier, write_page
from suite.report.page import said_in
from suite.report.sentiment import data_lines
from suite.study.plan import REFERENCE, Grid, plan_study
from suite.study.profiles import GRIDS, chosen_grid, sentiment_study
from suite.study.run import Finished, run_study
from suite.study.study import Study

MANY_PROMPTS = {"validation_prompts": 256, "test_prompts": 512}


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the frontier experiment."""

    profile: str = "embedded"
    """Models, data and sizes: smoke, embedded, rehearsal or paper."""
    grid: Literal["default", "core", "paper", "variants", "noise", "trl", "llama2"] = "default"
    """default: a few settings of every method; core: more of them, on more prompts; paper: all of the paper's; variants: the
    DPO family; noise: what is made for wrong labels; trl: TRL's trainers beside ours; llama2: rejection sampling, with PPO on
    top of it and beside it."""
    methods: Names = ""
    """Comma-separated methods of the grid, or your own as module:Class (its Config's defaults); all of the grid if empty."""
    seeds: str = "0"
    """Comma-separated training seeds: each draws its own prompts, preferences and reward model, and trains on them. The rates
    were searched with seed 0."""
    labels: Literal["hard", "bradley_terry"] = "hard"
    """hard: the higher gold reward wins (the paper); bradley_terry: it wins with probability σ(scale·difference)."""
    label_noise: Share | None = None
    """Share of labels that are then turned, from 0 to below 0.5."""
    longer: Count = 1
    """So many times the passes over the pairs, and the completions of methods that draw their own; a power of two."""
    validation_prompts: Count | None = None
    test_prompts: Count | None = None
    """Held-out prompts. Default: the profile's, of every grid but the default one 256 and 512."""
    reviews: Name | None = None
    """Real reviews for the prefixes: Hub name or local path with train and test splits. Default: drawn from the model."""
    reference: Name | None = None
    """Another reference model: folder or Hub name."""
    gold_reward: Name | None = None
    """Another sentiment classifier as gold reward: folder or Hub name."""
    alone: bool = False
    """Leave the committed frontier of several seeds out of the figure of one."""
    reuse_records: Folder | None = None
    """Results folder whose numbers are taken where they are of the very runs that would be made: same settings, code, draws."""
    sampler_dtype: Literal["float32", "bfloat16"] | None = None
    """Arithmetic in which training completions and the pool are drawn; evaluation is in float32. Default: what the machine does
    fast."""


def lengthened(study: Study, grid: Grid, times: int) -> tuple[Study, Grid]:
    """Both with longer runs, which keep as many policies of their beginnings. Raises UserError for no power of two."""

    def longer(setting: Mapping[str, Any]) -> dict[str, Any]:
        return {**setting, **({"num_epochs": times * setting["num_epochs"]} if "num_epochs" in setting else {})}

    doublings = times.bit_length() - 1
    if times < 1 or times != 2**doublings:
        raise UserError(f"--longer {times}: expected 1, 2, 4, 8, …")
    optim = replace(study.optim, num_epochs=times * study.optim.num_epochs, num_snapshots=study.optim.num_snapshots + doublings)
    own = {name: longer(setting) for name, setting in study.settings.items()}
    study = replace(study, optim=optim, settings=own, on_policy_samples=times * study.on_policy_samples)
    return study, {name: [longer(setting) for setting in settings] for name, settings in grid.items()}


def main(args: Arguments) -> int:
    seeds = parse_seeds(args.seeds)
    grid = chosen_grid(GRIDS[args.grid], args.methods, GRIDS["llama2"], GRIDS["trl"], GRIDS["variants"])
    many = MANY_PROMPTS if args.profile == "embedded" and args.grid != "default" else {}
    study = sentiment_study(
        args.profile, **args.machine, labels=args.labels, label_noise=args.label_noise, source=args.reviews,
        validation_prompts=args.validation_prompts or many.get("validation_prompts"),
        test_prompts=args.test_prompts or many.get("test_prompts"),
        model=args.reference, gold_reward=args.gold_reward, sampler_dtype=args.sampler_dtype,
    )  # fmt: skip
    if args.longer != 1:
        study, grid = lengthened(study, grid, args.longer)
    out = args.folder("imdb_frontier", study.profile)
    if args.grid != "default" and not args.out:
        out = out.with_name(f"{out.name}_{args.grid}_grid")
    kept, left = None, None
    if folder := args.reuse_records:
        found = read_reusable(folder)
        study = in_recorded_precision(study, found) if args.precision == "auto" else study
    plan = plan_study(study, grid, RewardKLEvaluator(), seeds=seeds, reference=Contender(REFERENCE))
    if folder:
        left, kept = split(plan, found)
        print(
            f"{folder}: {len(kept.records.groupby(RUN))} of {len({p.contender for p in plan.points})} contenders are recorded"
        )
        if left is None and args.dry_run:
            print("there is nothing to run")
            return 0
        if left is None:
            write_deviations(out, study, grid, seeds)
            words = write_page(out, kept, samples=args.page_samples)
            print(f"\n{words}\nWritten to {out} from the records: there was nothing to run")
            return 0

    def page(finished: Finished, out: Path) -> str:
        if folder and kept is not None:
            same_pairs(args.runs, finished.plan, folder, kept)
        write_deviations(out, study, grid, seeds)
        title, data = "Reward-KL frontier, controlled sentiment", data_lines(args.runs, finished.plan)
        core = out.with_name("imdb_frontier_core_grid")
        behind = core if not args.alone and args.grid == "default" and (core / "study.json").exists() else None
        paper = said_in("paper")["imdb_frontier"]
        return write_frontier(finished, out, title=title, data=data, recorded=kept, behind=behind,
                              deviations=deviations(study, grid, seeds), **paper)  # fmt: skip

    return run_study(left or plan, page, out=out, options=args.run_options())


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
