"""Win rates in dialogue against sampling temperature and over training (Fig. 3 of Rafailov et al. 2023).

Preferred-FT on the chosen replies is the reference; DPO, PPO and Best-of-N start from it; prompting asks the model before.
Everybody answers the same test prompts, and a judge compares with the chosen replies. Everything is cached and resumable.

Examples:
  python experiments/run_hh_dialogue.py                                    made-up dialogues, embedded model: does it run?
  python experiments/run_hh_dialogue.py --profile local --pairs hh.jsonl   SmolLM2-135M-Instruct on a CPU, about an hour
  python experiments/run_hh_dialogue.py --profile local --pairs hh.jsonl --methods dpo,best_of_n --dry-run
  python experiments/run_hh_dialogue.py --profile paper --judge openai:gpt-4o --max-cost 20   Pythia-2.8B; GPU and network
"""

from dataclasses import dataclass

from suite.cli.options import parse_temperatures, run_script
from suite.cli.ranges import Names
from suite.cli.win_rates import TextOptions, run_win_rates
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.report.page import said_in
from suite.study.profiles import METHODS, chosen_grid


@dataclass(frozen=True)
class Arguments(TextOptions):
    """Command line of the dialogue experiment."""

    methods: Names = ""
    """Comma-separated methods of the profile; all if empty. The reference is always there."""
    temperatures: str = "0,0.25,0.7,1"
    """Comma-separated; 0 is greedy."""
    training_temperatures: str = "0.7,1"
    """Of the curve over training."""


def main(args: Arguments) -> int:
    at = parse_temperatures(args.temperatures)
    during = parse_temperatures(args.training_temperatures, "--training-temperatures")
    study = args.study("hh_dialogue")
    grid = chosen_grid(METHODS["hh_dialogue"][study.profile], args.methods)
    evaluator = WinRateEvaluator(tuple(at), tuple(during))
    said = said_in("paper")["hh_dialogue"]
    return run_win_rates(args, study, grid, evaluator, name="hh_dialogue", title="Win rate in dialogue", **said)


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
