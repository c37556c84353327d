"""Gold reward against sampling temperature, for the last policy of every run of a grid (after Fig. 2 right of the paper).

Policies are trained at temperature 1 and sampled at others. Trains what `run_imdb_frontier.py` has not trained yet, and draws
on the same test prompts.

Examples:
  python experiments/run_temperature.py                              the default grid, embedded models
  python experiments/run_temperature.py --profile smoke --methods dpo
  python experiments/run_temperature.py --temperatures 0,0.5,1 --dry-run
"""

from dataclasses import dataclass
from functools import partial

from suite.cli.options import MachineOptions, parse_temperatures, run_script
from suite.cli.ranges import Names, Seed
from suite.common.registry import describe
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.interfaces import Contender
from suite.report.curves import write_curves
from suite.study.plan import REFERENCE, plan_study
from suite.study.profiles import GRIDS, chosen_grid, sentiment_study
from suite.study.run import run_study


@dataclass(frozen=True)
class Arguments(MachineOptions):
    """Command line of the temperature sweep."""

    profile: str = "embedded"
    """smoke, embedded, rehearsal or paper."""
    methods: Names = ""
    """Comma-separated methods of the default grid; all that are trained if empty."""
    temperatures: str = "0,0.25,0.5,0.75,1"
    """Comma-separated; 0 is greedy."""
    seed: Seed = 0
    """Training seed."""


def main(args: Arguments) -> int:
    temperatures = parse_temperatures(args.temperatures)
    study = sentiment_study(args.profile, **args.machine)
    chosen = chosen_grid(GRIDS["default"], args.methods)
    grid = {name: settings for name, settings in chosen.items() if describe(name).trained}
    evaluator = RewardKLEvaluator(tuple(temperatures), splits=("test",), pool=False)
    plan = plan_study(study, grid, evaluator, seeds=[args.seed], reference=Contender(REFERENCE))
    about = {
        "title": "Reward against temperature", "metric": "reward", "label": f"gold reward, {study.reward_name}",
        "caption": [f"Each run's last policy; n = {study.test_prompts} test prompts, training seed {args.seed}."],
    }  # fmt: skip
    out = args.folder("temperature", args.profile)
    return run_study(plan, partial(write_curves, about=about), out=out, options=args.run_options())


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
