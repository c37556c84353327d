"""The reward-KL frontier of the controlled sentiment experiment (Fig. 2 left of Rafailov et al. 2023).

Trains every method on preferences over its own reference's completions, measures gold reward and KL(π‖π_ref) on test
prompts, and draws the frontier. Everything is cached and resumable: the same command goes on where it was stopped, and a
finished sweep redraws in seconds.

Examples:
  python experiments/run_imdb_frontier.py                                  embedded models, no network, CPU, minutes
  python experiments/run_imdb_frontier.py --profile smoke                  the whole pipeline in about a minute
  python experiments/run_imdb_frontier.py --dry-run                        every run, cached or not
  python experiments/run_imdb_frontier.py --grid paper --seeds 0,1,2       the paper's grid, three training seeds
  python experiments/run_imdb_frontier.py --methods dpo,best_of_n          some methods
  python experiments/run_imdb_frontier.py --methods dpo,my_pkg.kto:KTO     your own method in the race
  python experiments/run_imdb_frontier.py --reviews stanfordnlp/imdb       prefixes of real reviews
  python experiments/run_imdb_frontier.py --profile paper --grid paper     gpt2-large and siebert's classifier, GPU, network
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.cli.options import MachineOptions, parse_seeds, run_script
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.report.deviations import write_deviations
from suite.report.frontier import write_frontier
from suite.report.page import said_in
from suite.report.sentiment import data_lines
from suite.study.plan import REFERENCE, plan_study
from suite.study.profiles import GRIDS, chosen_grid, sentiment_study
from suite.study.run import Finished, run_study


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the frontier experiment."""

    profile: str = "embedded"
    """Models, data and sizes: smoke, embedded or paper."""
    grid: Literal["default", "paper", "variants", "trl"] = "default"
    """default: a few settings of every method; paper: all of the paper's; variants: the DPO family; trl: TRL's trainers beside
    ours."""
    methods: str = ""
    """Comma-separated methods of the grid, or your own as module:Class (its Config's defaults); all of the grid if empty."""
    seeds: str = "0"
    """Comma-separated training seeds."""
    labels: Literal["hard", "bradley_terry"] = "hard"
    """hard: the higher gold reward wins (the paper); bradley_terry: it wins with probability σ(scale·difference)."""
    reviews: str | None = None
    """Real reviews for the prefixes: Hub name or local path with train and test splits. Default: drawn from the model."""
    reference: str | None = None
    """Another reference model: folder or Hub name."""
    gold_reward: str | None = None
    """Another sentiment classifier as gold reward: folder or Hub name."""
    sampler_dtype: Literal["float32", "bfloat16"] | None = None
    """Arithmetic in which training completions and the pool are drawn; evaluation is in float32. Default: what the machine does
    fast."""


def main(args: Arguments) -> int:
    seeds = parse_seeds(args.seeds)
    grid = chosen_grid(GRIDS[args.grid], args.methods, GRIDS["trl"], GRIDS["variants"])
    study = sentiment_study(
        args.profile, **args.machine, labels=args.labels, source=args.reviews,
        model=args.reference, gold_reward=args.gold_reward, sampler_dtype=args.sampler_dtype,
    )  # fmt: skip
    plan = plan_study(study, grid, RewardKLEvaluator(), seeds=seeds, reference=Contender(REFERENCE))

    def page(finished: Finished, out: Path) -> str:
        write_deviations(out, study, grid, seeds)
        title, data = "Reward-KL frontier, controlled sentiment", data_lines(args.runs, finished.plan)
        return write_frontier(finished, out, title=title, data=data, **said_in("paper")["imdb_frontier"])

    out = args.folder("imdb_frontier", study.profile)
    if args.grid != "default" and not args.out:
        out = out.with_name(f"{out.name}_{args.grid}_grid")
    return run_study(plan, page, out=out, options=args.run_options())


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
