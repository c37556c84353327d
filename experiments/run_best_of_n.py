"""How far does Best-of-N go? Win rate against N (Fig. 4 of Rafailov et al. 2023), and gold reward against N on film reviews.

N samples of the reference at one temperature, the one that the learned reward scores highest is kept. All N read the same
samples. On the dialogue or summary task a judge compares with the reference answers; --task imdb_sentiment takes the pool of
run_imdb_frontier.py and its gold reward instead of a judge. Everything is cached and resumable.

Examples:
  python experiments/run_best_of_n.py                                                 made-up dialogues: does it run?
  python experiments/run_best_of_n.py --task imdb_sentiment                           after run_imdb_frontier.py, seconds
  python experiments/run_best_of_n.py --profile local --pairs hh.jsonl                SmolLM2-135M-Instruct on a CPU
  python experiments/run_best_of_n.py --profile paper --task tldr_summarization --judge openai:gpt-4o --max-cost 20
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import tyro
from answers import Common, conduct, parse_numbers, study_of

from suite.errors import one_line_errors

SIZES = {"smoke": "1,2,4,8", "local": "1,2,4,8,16", "paper": "1,4,16,64,128"}
PAPER = """
N of 1, 4, 16, 64 and 128, GPT-4 as judge: the win rate rises with N and is flat from 64 to 128, on TL;DR (samples of the SFT
model) and on HH (samples of Preferred-FT); Fig. 4, no numbers are printed. 128 samples at temperature 0.5 are at about 57 % on
TL;DR, read off Fig. 2.
"""


@dataclass(frozen=True)
class Arguments(Common):
    """Command line of the Best-of-N experiment."""

    task: Literal["hh_dialogue", "tldr_summarization", "imdb_sentiment"] = "hh_dialogue"
    """Where."""
    sizes: str = ""
    """Comma-separated N. Default: 1 to 8 (smoke), to 16 (local), to 128 (paper)."""
    temperature: float = 1.0
    """Of the samples."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.task == "imdb_sentiment":
        from best_of_n_imdb import run

        return run(arguments)
    from suite.runs.answer_study import Answerer, AnswerRuns
    from suite.runs.judged import Measured

    study = study_of(arguments.task, arguments)
    sizes = [int(n) for n in parse_numbers(arguments.sizes or SIZES[study.profile], "--sizes", least=1)]
    make = AnswerRuns(study)
    prompts = make.test_prompts()
    ways = [Answerer("Best-of-N", f"n = {n}", n=n) for n in sizes]
    measured = [
        Measured("best_of_n", make.answers(way, arguments.temperature, prompts, samples=max(sizes)), way.n) for way in ways
    ]
    name = "" if arguments.task == "hh_dialogue" else f"_{arguments.task.partition('_')[0]}"
    return conduct(arguments, study, make, measured, script=f"best_of_n{name}", title="Win rate of Best-of-N", paper=PAPER)


if __name__ == "__main__":
    sys.exit(main())
