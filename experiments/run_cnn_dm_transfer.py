"""Do policies that learned to summarise forum posts summarise news? (Table 1 of Rafailov et al. 2023), on CNN/DailyMail.

The policies are those of run_tldr_temperature.py, trained if they are not there yet; a judge compares their summaries of news
articles with the articles' highlights. Everything is cached and resumable.

Examples:
  python experiments/run_cnn_dm_transfer.py                                   made-up texts, embedded model: does it run?
  python experiments/run_cnn_dm_transfer.py --profile local --pairs comparisons.jsonl --answers tldr.jsonl --news cnn.jsonl
  python experiments/run_cnn_dm_transfer.py --profile paper --judge openai:gpt-4o --max-cost 20    GPT-J; GPU and network
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import tyro
from answers import Common, chosen_methods, conduct, over_temperatures, parse_numbers
from run_tldr_temperature import METHODS
from text_profiles import study_of

from suite.errors import one_line_errors

PAPER = """
GPT-J, GPT-4 with prompt C ("news article" for "forum post") as judge, against the highlights: 0.36 and 0.31 for DPO, 0.26 and
0.23 for PPO at temperatures 0 and 0.25 (Table 1; with more digits and standard errors from the authors, in review).
"""
PAPER_RATES = {"DPO": {"0": "0.359 ± 0.030", "0.25": "0.309 ± 0.029"}, "PPO": {"0": "0.258 ± 0.027", "0.25": "0.230 ± 0.026"}}


@dataclass(frozen=True)
class Arguments(Common):
    """Command line of the transfer experiment."""

    news: str = ""
    """Articles with highlights: Hub name (by default abisee/cnn_dailymail:3.0.0), local folder or file."""
    methods: str = ""
    """Comma-separated; by default dpo and, where the profile has it, ppo. The reference is always there."""
    temperatures: str = "0,0.25"
    """Comma-separated; 0 is greedy."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.data.text_parts import INVENTED
    from suite.data.text_tasks import load_task
    from suite.runs.answer_study import AnswerRuns

    temperatures = parse_numbers(arguments.temperatures, "--temperatures")
    study = study_of("tldr_summarization", arguments)
    make = AnswerRuns(study)
    news = arguments.news or (INVENTED if make.invented else load_task("cnn_dm_transfer").answers)
    prompts = make.texts("cnn_dm_transfer", news, "test", study.test_prompts)
    known = METHODS[study.profile]
    names = arguments.methods or ",".join(name for name in ("dpo", "ppo") if name in known)
    policies = [make.reference, *chosen_methods(known, names, make, arguments.seed)]
    measured = over_temperatures(make, policies, temperatures, prompts)
    return conduct(
        arguments, study, make, measured, script="cnn_dm_transfer", title="Win rate of summaries of news articles", paper=PAPER,
        paper_rates=PAPER_RATES,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
