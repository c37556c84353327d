"""Do policies that learned to summarise forum posts summarise news? (Table 1 of Rafailov et al. 2023), on CNN/DailyMail.

The policies are those of run_tldr_temperature.py, trained if they are not there yet; a judge compares their summaries of news
articles with the articles' highlights. Everything is cached and resumable.

Examples:
  python experiments/run_cnn_dm_transfer.py                                   made-up texts, embedded model: does it run?
  python experiments/run_cnn_dm_transfer.py --profile local --pairs comparisons.jsonl --answers tldr.jsonl --news cnn.jsonl
  python experiments/run_cnn_dm_transfer.py --profile paper --judge openai:gpt-4o --max-cost 20    GPT-J; GPU and network
"""

from dataclasses import dataclass

from suite.cli.options import parse_temperatures, run_script
from suite.cli.ranges import Names
from suite.cli.win_rates import TextOptions, run_win_rates
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.report.page import said_in
from suite.study.profiles import SUMMARY_METHODS, chosen_grid
from suite.tasks.cnn_dm_transfer import TASK
from suite.tasks.splits import MADE_UP


@dataclass(frozen=True)
class Arguments(TextOptions):
    """Command line of the transfer experiment."""

    news: str = ""
    """Articles with highlights: Hub name (by default abisee/cnn_dailymail:3.0.0), local folder or file."""
    methods: Names = ""
    """Comma-separated; by default dpo and, where the profile has it, ppo. The reference is always there."""
    temperatures: str = "0,0.25"
    """Comma-separated; 0 is greedy."""


def main(args: Arguments) -> int:
    evaluator = WinRateEvaluator(tuple(parse_temperatures(args.temperatures)))
    study = args.study("tldr_summarization")
    known = SUMMARY_METHODS[study.profile]
    grid = chosen_grid(known, args.methods or ",".join(name for name in ("dpo", "ppo") if name in known))
    news = args.news or (MADE_UP if MADE_UP in (study.source, study.answers) else TASK.answers)
    return run_win_rates(
        args, study, grid, evaluator, name="cnn_dm_transfer", title="Win rate of summaries of news articles",
        other_task=("cnn_dm_transfer", news), **said_in("paper")["cnn_dm_transfer"],
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
