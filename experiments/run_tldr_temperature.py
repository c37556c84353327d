"""Win rates of summaries against sampling temperature (Fig. 2 right of Rafailov et al. 2023), on TL;DR forum posts.

Everybody starts from the same SFT model and summarises the same test posts; a judge compares with the summaries that people
wrote, or with those of one of the policies (--opponent, Table 2). Unlikelihood is there to show how it degenerates (Table 3;
--samples writes what everybody says). Everything is cached and resumable.

Examples:
  python experiments/run_tldr_temperature.py                                        made-up posts, embedded model: does it run?
  python experiments/run_tldr_temperature.py --profile local --pairs comparisons.jsonl --answers tldr.jsonl
  python experiments/run_tldr_temperature.py --profile local --pairs trl-lib/tldr-preference --answers trl-lib/tldr --dry-run
  python experiments/run_tldr_temperature.py --profile paper --judge openai:gpt-4o --max-cost 20   GPT-J; GPU and network
  python experiments/run_tldr_temperature.py --methods dpo,ppo --temperatures 0,0.25,1 --opponent ppo@0   as in Table 2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from answers import Common, chosen_methods, conduct, over_temperatures, parse_numbers
from text_profiles import study_of

from suite.errors import UserError, one_line_errors

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "zero_shot": {}, "preferred_ft": {}, "dpo": {"beta": 0.5}, "ppo": {}, "unlikelihood": {"alpha": 0.5},
        "best_of_n": {"n": 4},
    },
    "local": {
        "zero_shot": {}, "preferred_ft": {}, "dpo": {"beta": 0.5}, "unlikelihood": {"alpha": 0.5}, "best_of_n": {"n": 4},
    },
    "paper": {
        "zero_shot": {}, "preferred_ft": {}, "dpo": {"beta": 0.5}, "ppo": {"target_kl": 6.0}, "unlikelihood": {"alpha": 0.5},
        "best_of_n": {"n": 128},
    },
}  # fmt: skip
PAPER = """
GPT-J, GPT-4 with prompt C as judge, against the reference summaries: DPO about 61 % at temperature 0, PPO about 57 % at its
best temperature, which is 0; DPO exceeds Best-of-N's maximum (128 samples about 57 %, read off the figure) and stays there at
high temperatures, where PPO falls to the level of the base model.
"""
PAPER_RATES = {"DPO": {"0": "about 0.61"}, "PPO": {"0": "about 0.57"}, "Best-of-N n = 128": {"0.5": "about 0.57, read off"}}


@dataclass(frozen=True)
class Arguments(Common):
    """Command line of the summary experiment."""

    methods: str = ""
    """Comma-separated methods of the profile; all if empty. The reference is always there."""
    temperatures: str = "0,0.25,0.5,0.75,1"
    """Comma-separated; 0 is greedy."""
    opponent: str = ""
    """Judge against this policy's summaries instead of those that people wrote: a method and its temperature, ppo@0."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.runs.answer_study import AnswerRuns

    temperatures = parse_numbers(arguments.temperatures, "--temperatures")
    study = study_of("tldr_summarization", arguments)
    make = AnswerRuns(study)
    prompts = make.test_prompts()
    policies = [make.reference, *chosen_methods(METHODS[study.profile], arguments.methods, make, arguments.seed)]
    measured = over_temperatures(make, policies, temperatures, prompts)
    opponent, script = None, "tldr_temperature"
    if arguments.opponent:
        opponent = opponent_of(arguments.opponent, make, policies, prompts)
        measured = [point for point in measured if point.answers.run.key != opponent.run.key]
        script = f"tldr_against_{arguments.opponent.replace('@', '_at_')}"
    return conduct(
        arguments, study, make, measured, script=script, title="Win rate of summaries of forum posts", paper=PAPER,
        opponent=opponent, paper_rates={} if opponent else PAPER_RATES,
    )  # fmt: skip


def opponent_of(text: str, make: Any, policies: Sequence[Any], prompts: Any) -> Any:
    """The answers that METHOD@TEMPERATURE means.

    Raises:
        UserError: It is none of the policies, or no temperature.
    """
    from suite.registry import load_method

    name, _, temperature = text.partition("@")
    at = parse_numbers(temperature or "0", "--opponent")
    known = [policy for policy in policies if policy.method == load_method(name).name]
    if not known or len(at) > 1:
        raise UserError(f"--opponent {text!r}: expected one of --methods and a temperature, for example ppo@0")
    return make.answers(known[0], at[0], prompts)


if __name__ == "__main__":
    sys.exit(main())
