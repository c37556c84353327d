"""Is DPO better than RLHF on your preference data? From the file to a verdict, one command.

Looks at the data, makes a held-out split if there is none, fine-tunes the model on the chosen answers (Preferred-FT: the
reference), fits a reward model, trains the methods, and measures all on the same held-out prompts: by a judge, as win rates
against the chosen answers; or by a reward of yours, as a frontier of reward against KL. The default judge is a reward model
fitted to a half of the pairs that no method sees. Everything is cached and resumable.

Examples:
  python experiments/run_on_my_data.py --pairs pairs.jsonl                 embedded model, on a CPU, minutes
  python experiments/run_on_my_data.py --pairs pairs.jsonl --dry-run       what it would run
  python experiments/run_on_my_data.py --pairs my_data/ --model gpt2 --judge openai:gpt-4o --max-cost 5
  python experiments/run_on_my_data.py --pairs pairs.jsonl --reward my_pkg.rewards:politeness
  python experiments/run_on_my_data.py --pairs trl-lib/ultrafeedback_binarized --profile paper --model Qwen/Qwen3-0.6B
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro
from answers import RESULTS, Common, chosen_methods, conduct, over_temperatures, parse_numbers
from own_data_check import examine
from text_profiles import study_of

from suite.errors import UserError, one_line_errors
from suite.judges.judging import OWN_JUDGE

GRIDS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "win rates": {
        "dpo": [{"beta": 0.1}], "ppo": [{}], "unlikelihood": [{}], "best_of_n": [{"n": 8}],
    },
    "frontier": {
        "dpo": [{"beta": 0.1}, {"beta": 1.0}], "ppo": [{"target_kl": 3.0}, {"target_kl": 6.0}], "unlikelihood": [{}],
        "best_of_n": [{"n": n} for n in (2, 4, 8, 16)],
    },
}  # fmt: skip
STEPS, MOST_EPOCHS = {"smoke": 6}, 8
"""Optimizer steps (60 where none are named) that small data are gone over for, in so many passes at most."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Common):
    """Command line of the experiment on your data."""

    pairs: str = field()  # type: ignore[assignment]
    """Preference data in any format that TRL documents: file, folder or Hub name. `suite doctor` says what is wrong with it."""
    profile: Literal["smoke", "embedded", "local", "paper"] = "embedded"  # type: ignore[assignment]
    """Model and sizes where nothing else is said. smoke: as small as can be; embedded: a model of film reviews, CPU; local:
    SmolLM2-135M-Instruct, CPU; paper: Pythia-2.8B, GPU."""
    reward: str | None = None
    """Measure by this instead of a judge: a two-class classifier or one-label reward model (folder or Hub name), or
    module:function, called with two lists of texts, prompts and completions."""
    methods: str = ""
    """Comma-separated; default: dpo, ppo, unlikelihood and best_of_n. The reference is always there."""
    samples: int = 4
    """Test prompts whose answers samples.md shows."""
    temperatures: str = "1"
    """Of the win rates, comma-separated; 0 is greedy. A frontier is at temperature 1."""
    max_prompt_tokens: int | None = None
    """Longer prompts are left out. Default, as of the next three: the profile's."""
    max_new_tokens: int | None = None
    """Longer answers, EOS included, are cut; and so long are those that policies give."""
    train_pairs: int | None = None
    """Pairs for the methods, at most; and as many for the judge."""
    test_prompts: int | None = None
    """Prompts to measure on, at most; and as many for validation, where that is needed."""


def sized(study: Any, pairs: int, *, snapshots: int) -> Any:
    """The study with as many passes over its `pairs` as small data need, and no more snapshots than steps."""
    epochs = min(MOST_EPOCHS, max(1, math.ceil(STEPS.get(study.profile, 60) * study.optim.batch_size / pairs)))
    changes = {
        name: replace(optim, num_epochs=epochs)
        for name in ("optim", "reward_model", "sft")
        if (optim := getattr(study, name)) is not None
    }
    steps = epochs * math.ceil(pairs / study.optim.batch_size)
    changes["optim"] = replace(changes["optim"], num_snapshots=min(snapshots, steps))
    fitted = int(0.9 * pairs) // study.reward_model.batch_size * epochs  # a tenth is held out
    changes["reward_model"] = replace(
        changes["reward_model"], num_snapshots=max(1, min(study.reward_model.num_snapshots, fitted))
    )
    return replace(study, **changes)


def base_of(names: list[str]) -> str:
    """Name of the method that the others are compared with: DPO, or the first that is named and trained."""
    from suite.registry import load_method

    methods = [load_method(name) for name in ("dpo", *names) if name in names]
    trained = [method for method in methods if not method.evaluated_from_pool and getattr(method, "trained", True)]
    return (trained or methods)[0].name


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.reward and arguments.judge != OWN_JUDGE:
        raise UserError("--reward and --judge: give one of them")
    from suite.runs.answer_study import AnswerRuns, resolve_reward

    if arguments.reward:
        resolve_reward(arguments.reward)
    temperatures = parse_numbers(arguments.temperatures, "--temperatures")
    study = replace(study_of("own_data", arguments), gold_reward=arguments.reward)
    for name in ("max_prompt_tokens", "max_new_tokens", "train_pairs", "test_prompts"):
        if (value := getattr(arguments, name)) is not None:
            if value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
            judge = {"judge_pairs": value} if name == "train_pairs" and study.judge_pairs else {}
            study = replace(study, **{name: value}, **judge)
    names = list(dict.fromkeys(name.strip() for name in arguments.methods.split(",") if name.strip()))
    names = names or list(GRIDS["frontier"])
    against = base_of(names)
    counts, found = examine(study)
    study = sized(study, next(iter(counts.values())), snapshots=study.optim.num_snapshots if arguments.reward else 1)
    make = AnswerRuns(study)
    by = "".join(c if c.isalnum() else "_" for c in Path(arguments.reward or arguments.judge).name)
    model = f"_{Path(arguments.model).name}" if arguments.model else ""
    out = arguments.out or RESULTS / f"{Path(arguments.pairs).name.partition('.')[0]}_{study.profile}{model}_by_{by}"
    arguments = replace(arguments, out=out)
    if arguments.reward:
        return frontier(arguments, study, make, found, names, against)
    policies = [make.reference, *chosen_methods(first(GRIDS["win rates"]), arguments.methods, make, arguments.seed)]
    measured = over_temperatures(make, policies, temperatures, make.test_prompts())
    code = conduct(arguments, study, make, measured, script="my_data", title="Win rate on your data", paper="")
    if not arguments.dry_run:
        from suite.figures.win_rates_page import verdict

        table = pd.read_csv(out / "win_rates.csv", keep_default_na=False, na_values=[""]).fillna({"setting": ""})
        caption = json.loads((out / "about.json").read_text())["caption"]
        words = verdict(table, pd.read_parquet(out / "per_prompt.parquet"), against)
        page = "\n\n".join([*caption, words, rates_line(study, names)])
        write_pages(out, page, found)
    return code


def rates_line(study: Any, names: Sequence[str]) -> str:
    """Whose learning rates these are."""
    from suite.registry import load_method, resolve

    searched = {resolve(name): rate for name, rate in study.learning_rates.items()}
    trained = [name for name in names if "optim" in load_method(name).Config.__dataclass_fields__]
    rates = ", ".join(f"{name} {searched.get(resolve(name), load_method(name).Config().optim.lr):g}" for name in trained)
    return (
        f"Learning rates were not searched on these data or this model; they are those of the profile or the method: {rates}."
    )


def first(grid: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Method → its first setting."""
    return {name: settings[0] for name, settings in grid.items()}


def frontier(arguments: Arguments, study: Any, make: Any, found: list[str], names: list[str], against: str) -> int:
    """Reward against KL, measured by the user's reward."""
    import shlex

    from suite.figures.report import write_report
    from suite.figures.results import Results
    from suite.figures.verdict import verdict
    from suite.files import check_writable
    from suite.rewards.open_reward import is_function
    from suite.runs.own_data import plan_own_data
    from suite.runs.sweep import closure, print_plan, run_all

    grid = {name: GRIDS["frontier"].get(name, [{}]) for name in names}
    name, maximum = reward_scale(str(arguments.reward), make.where["gold_reward"])
    plan = plan_own_data(make, grid, [arguments.seed], reward_name=name, maximum=maximum)
    print_plan(arguments.runs, plan.targets, workers=arguments.workers)
    if arguments.dry_run:
        return 0
    out = Path(str(arguments.out))
    for folder in (arguments.runs, out):
        check_writable(folder)
    failed = {
        outcome.spec.key
        for outcome in run_all(arguments.runs, plan.targets, workers=arguments.workers, tracker=arguments.tracker)
    }
    plan = plan.without(failed)
    if failed & {spec.key for spec in closure(plan.targets)}:  # what everything needs
        return 1
    command = shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    what = arguments.reward if is_function(str(arguments.reward)) else Path(str(arguments.reward)).name
    heading = [
        f"# Reward-KL frontier on {Path(arguments.pairs).name}",
        f"- profile **{study.profile}**: `{Path(study.model).name}`, fine-tuned on the chosen answers; gold reward `{what}`, "
        f"{name}",
        f"- {found[0]}",
    ]
    write_report(arguments.runs, plan, out=out, workers=arguments.workers, command=command, heading=heading, against=against)
    write_pages(out, f"{verdict(Results(out).comparisons, against)}\n\n{rates_line(study, names)}", found)
    return 1 if failed else 0


def reward_scale(given: str, resolved: str) -> tuple[str, float]:
    """Name of a reward for tables, and the largest value it can have."""
    from suite.rewards.open_reward import is_function, open_reward
    from suite.rewards.text_rewards import ClassifierReward

    if is_function(given):
        return given, math.inf
    return ("P(positive)", 1.0) if isinstance(open_reward(resolved), ClassifierReward) else ("reward model's score", math.inf)


def write_pages(out: Path, words: str, found: list[str]) -> None:
    """`doctor.txt`, and `verdict.md`, which is printed."""
    from suite.files import write_atomically

    page = (
        f"# Verdict\n\n{words}\n\n[Everything that was measured](summary.md) · [sample answers](samples.md) · [what the doctor "
        "says of the data](doctor.txt)\n"
    )
    texts = {"doctor.txt": "\n".join(found) + "\n", "verdict.md": page}
    for name, text in texts.items():
        write_atomically(out / name, lambda path, text=text: path.write_text(text))
    print(f"\n{page}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))


if __name__ == "__main__":
    sys.exit(main())
