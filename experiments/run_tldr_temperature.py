"""Win rates of summaries against sampling temperature (Fig. 2 right of Rafailov et al. 2023), on TL;DR forum posts.

Everybody starts from the same SFT model and summarises the same test posts; a judge compares with the summaries that people
wrote, or with those of one of the policies (--opponent, Table 2).
Unlikelihood is there to show how it degenerates (Table 3; --samples writes what everybody says). Everything is cached and
resumable.

Examples:
  python experiments/run_tldr_temperature.py                                        made-up posts, embedded model: does it run?
  python experiments/run_tldr_temperature.py --profile local --pairs comparisons.jsonl --answers tldr.jsonl
  python experiments/run_tldr_temperature.py --profile local --pairs trl-lib/tldr-preference --answers trl-lib/tldr --dry-run
  python experiments/run_tldr_temperature.py --profile paper --judge openai:gpt-4o --max-cost 20   GPT-J; GPU and network
  python experiments/run_tldr_temperature.py --methods dpo,ppo --temperatures 0,0.25,1 --opponent ppo@0   as in Table 2
"""

from dataclasses import dataclass

from suite.cli.options import parse_temperatures, run_script
from suite.cli.ranges import Names
from suite.cli.win_rates import TextOptions, run_win_rates
from suite.common.errors import UserError
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.report.page import said_in
from suite.study.profiles import SUMMARY_METHODS, chosen_grid


@dataclass(frozen=True)
class Arguments(TextOptions):
    """Command line of the summary experiment."""

    methods: Names = ""
    """Comma-separated methods of the profile; all if empty. The reference is always there."""
    temperatures: str = "0,0.25,0.5,0.75,1"
    """Comma-separated; 0 is greedy."""
    opponent: str = ""
    """Judge against this policy's summaries instead of those that people wrote: a method and its temperature, ppo@0."""


def main(args: Arguments) -> int:
    evaluator = WinRateEvaluator(tuple(parse_temperatures(args.temperatures)))
    study = args.study("tldr_summarization")
    grid = chosen_grid(SUMMARY_METHODS[study.profile], args.methods)
    against, name, said = None, "tldr_temperature", said_in("paper")["tldr_temperature"]
    if args.opponent:
        method, _, temperature = args.opponent.partition("@")
        at = parse_temperatures(temperature or "0", "--opponent")
        if len(at) > 1:
            raise UserError(f"--opponent {args.opponent!r}: expected one of --methods and a temperature, for example ppo@0")
        against, name = (method, at[0]), f"tldr_against_{args.opponent.replace('@', '_at_')}"
    return run_win_rates(
        args, study, grid, evaluator, name=name, title="Win rate of summaries of forum posts", opponent=against,
        paper=said["paper"], paper_rates={} if against else said["paper_rates"],
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
