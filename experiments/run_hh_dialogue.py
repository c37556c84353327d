"""Win rates in dialogue against sampling temperature and over training (Fig. 3 of Rafailov et al. 2023).

Preferred-FT on the chosen replies is the reference; DPO, PPO and Best-of-N start from it; prompting asks the model before.
Everybody answers the same test prompts, and a judge compares with the chosen replies. Everything is cached and resumable.

Examples:
  python experiments/run_hh_dialogue.py                                    made-up dialogues, embedded model: does it run?
  python experiments/run_hh_dialogue.py --profile local --pairs hh.jsonl   SmolLM2-135M-Instruct on a CPU, about an hour
  python experiments/run_hh_dialogue.py --profile local --pairs hh.jsonl --methods dpo,best_of_n --dry-run
  python experiments/run_hh_dialogue.py --profile paper --judge openai:gpt-4o --max-cost 20   Pythia-2.8B; GPU and network
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import tyro
from answers import Common, chosen_methods, conduct, over_temperatures, over_training, parse_numbers
from text_profiles import study_of

from suite.errors import one_line_errors

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"few_shot": {}, "dpo": {"beta": 0.1}, "ppo": {}, "best_of_n": {"n": 4}},
    "local": {"zero_shot": {}, "dpo": {"beta": 0.1}, "best_of_n": {"n": 4}},
    "paper": {"few_shot": {}, "dpo": {"beta": 0.1}, "ppo": {"target_kl": 6.0}, "best_of_n": {"n": 128}},
}
PAPER = """
Pythia-2.8B, GPT-4 as judge, one-turn test prompts, against the chosen replies: DPO is the only method that improves on the
chosen replies, and is similar to Best of 128; read off Fig. 3, no numbers are printed. Four training seeds of a DPO run on
Pythia-1B had 0.426, 0.410, 0.414 and 0.438 (the authors, in review).
"""


@dataclass(frozen=True)
class Arguments(Common):
    """Command line of the dialogue experiment."""

    methods: str = ""
    """Comma-separated methods of the profile; all if empty. The reference is always there."""
    temperatures: str = "0,0.25,0.7,1"
    """Comma-separated; 0 is greedy."""
    training_temperatures: str = "0.7,1"
    """Of the curve over training."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    from suite.runs.answer_study import AnswerRuns

    temperatures = parse_numbers(arguments.temperatures, "--temperatures")
    during = parse_numbers(arguments.training_temperatures, "--training-temperatures")
    study = study_of("hh_dialogue", arguments)
    make = AnswerRuns(study)
    prompts = make.test_prompts()
    policies = [make.reference, *chosen_methods(METHODS[study.profile], arguments.methods, make, arguments.seed)]
    measured = over_temperatures(make, policies, temperatures, prompts)
    for policy in (p for p in policies if p.method == "DPO"):
        measured += [point for t in during for point in over_training(make, policy, t, prompts)]
    return conduct(arguments, study, make, measured, script="hh_dialogue", title="Win rate in dialogue", paper=PAPER)


if __name__ == "__main__":
    sys.exit(main())
