"""How far does Best-of-N go? Win rate against N (Fig. 4 of Rafailov et al. 2023), and gold reward against N on film reviews.

N samples of the reference at one temperature, the one that the learned reward scores highest is kept. All N read the same
samples. On the dialogue or summary task a judge compares with the reference answers; --task imdb_sentiment takes the pool of
run_imdb_frontier.py and its gold reward instead of a judge. Everything is cached and resumable.

Examples:
  python experiments/run_best_of_n.py                                                 made-up dialogues: does it run?
  python experiments/run_best_of_n.py --profile embedded --task imdb_sentiment        seconds after run_imdb_frontier.py
  python experiments/run_best_of_n.py --profile local --pairs hh.jsonl                SmolLM2-135M-Instruct on a CPU
  python experiments/run_best_of_n.py --profile paper --task tldr_summarization --judge openai:gpt-4o --max-cost 20
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

import tyro
from answers import RESULTS, Common, conduct, parse_numbers
from text_profiles import study_of

from suite.errors import UserError, one_line_errors

TEXTS_ONLY = (
    "pairs", "answers", "model", "judge", "template", "max_cost", "price", "parameters", "lora_rank", "write_answers",
    "samples", "temperature",
)  # fmt: skip
"""Options that mean nothing on film reviews."""
SIZES = {"smoke": "1,2,4,8", "local": "1,2,4,8,16", "paper": "1,4,16,64,128"}
PAPER = """
N of 1, 4, 16, 64 and 128, GPT-4 as judge: the win rate rises with N and is flat from 64 to 128, on TL;DR (samples of the SFT
model) and on HH (samples of Preferred-FT); Fig. 4, no numbers are printed. 128 samples at temperature 0.5 are at about 57 % on
TL;DR, read off Fig. 2.
"""


@dataclass(frozen=True)
class Arguments(Common):
    """Command line of the Best-of-N experiment."""

    profile: Literal["smoke", "embedded", "local", "paper"] = "smoke"
    """As in the other experiments; embedded is for film reviews."""
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
        return on_film_reviews(arguments)
    from suite.runs.answer_study import Answerer, AnswerRuns
    from suite.runs.judged import Measured

    if arguments.profile == "embedded":
        raise UserError("--profile embedded is for film reviews (--task imdb_sentiment); here use smoke, local or paper")
    study = study_of(arguments.task, arguments)  # type: ignore[arg-type]
    sizes = parse_sizes(arguments.sizes or SIZES[study.profile])
    if arguments.temperature <= 0:
        raise UserError(f"--temperature {arguments.temperature:g}: expected more than 0; greedy samples are all equal")
    make = AnswerRuns(study)
    prompts = make.test_prompts()
    ways = [Answerer("Best-of-N", f"n = {n}", n=n) for n in sizes]
    measured = [
        Measured("best_of_n", make.answers(way, arguments.temperature, prompts, samples=max(sizes)), way.n) for way in ways
    ]
    name = "" if arguments.task == "hh_dialogue" else f"_{arguments.task.partition('_')[0]}"
    return conduct(arguments, study, make, measured, script=f"best_of_n{name}", title="Win rate of Best-of-N", paper=PAPER)


def parse_sizes(text: str) -> list[int]:
    """Different whole numbers, 1 or more."""
    found = parse_numbers(text, "--sizes", least=1)
    if any(number % 1 for number in found):
        raise UserError(f"--sizes {text!r}: expected whole numbers")
    return [int(number) for number in found]


def on_film_reviews(arguments: Arguments) -> int:
    """Expected gold reward for every N, from the pool of reference samples of the frontier experiment."""
    from run_imdb_frontier import Arguments as Frontier
    from run_imdb_frontier import chosen_grid, chosen_study

    from suite.files import check_writable
    from suite.runs.plan import plan_study
    from suite.runs.sweep import print_plan, run_all

    profile = arguments.profile
    usual = {field.name: field.default for field in fields(Arguments)}
    given = [f"--{name.replace('_', '-')}" for name in TEXTS_ONLY if getattr(arguments, name) != usual[name]]
    if given:
        raise UserError(f"{', '.join(given)}: --task imdb_sentiment has its own model, prompts, gold reward and temperature")
    if profile == "local":
        raise UserError("--profile local is for dialogues and summaries; on film reviews use --profile embedded")
    common = {name: getattr(arguments, name) for name in ("device", "micro_batch_size")}
    frontier = Frontier(profile=profile, methods="best_of_n,best_of_n_gt", **common)
    plan = plan_study(chosen_study(frontier), chosen_grid(frontier), [arguments.seed])
    sizes = parse_sizes(arguments.sizes or SIZES["paper"])
    sizes = [n for n in sizes if n <= plan.study.pool_size]
    targets = [*plan.pool, *plan.pool_scores]
    print_plan(arguments.runs, targets, workers=arguments.workers)
    if arguments.dry_run:
        return 0
    out = arguments.out or RESULTS / f"best_of_n_imdb{'' if profile == 'embedded' else f'_{profile}'}"
    for folder in (arguments.runs, out):
        check_writable(folder)
    if run_all(arguments.runs, targets, workers=arguments.workers, tracker=arguments.tracker):
        return 1
    write_film_reviews(out, arguments.runs, plan, sizes)
    return 0


def write_film_reviews(out: Path, runs: Path, plan: Any, sizes: list[int]) -> None:
    """`best_of_n.csv`, the figure and `summary.md`."""
    import pandas as pd

    from suite.figures.best_of_n import draw_all
    from suite.files import write_atomically
    from suite.maths.kl import best_of_n_kl_bound
    from suite.maths.statistics import expected_best_of_n, mean_interval
    from suite.runs.stages import pool_column

    rewards = pool_column([spec.directory(runs) / "completions.parquet" for spec in plan.pool], "reward")
    rewards = rewards.iloc[:, : plan.study.pool_size]
    scores = pool_column([spec.directory(runs) / "scores.parquet" for spec in plan.pool_scores], "score")
    scores = scores.loc[rewards.index, rewards.columns]
    rows = []
    for method, by in (("Best-of-N", scores), ("Best-of-N-GT", rewards)):
        for n in sizes:
            found = mean_interval(expected_best_of_n(rewards.to_numpy(), n, scores=by.to_numpy()))
            rows.append({"method": method, "n": n, "reward": found.mean, "low": found.low, "high": found.high,
                         "prompts": found.n, "pool": rewards.shape[1], "kl_bound": best_of_n_kl_bound(n)})  # fmt: skip
    table = pd.DataFrame(rows)
    write_atomically(out / "best_of_n.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    draw_all(out)
    shown = table.assign(reward=[f"{r.reward:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in table.itertuples()])
    cells = shown.pivot(index="n", columns="method", values="reward").reset_index().rename(columns={"n": "N"})
    cells.insert(1, "KL at most, nats", [f"{best_of_n_kl_bound(n):.2f}" for n in cells["N"]])
    page = (
        f"# Best-of-N on film reviews\n\n`{' '.join(['python experiments/run_best_of_n.py', *sys.argv[1:]])}`  \n"
        f"{date.today()}\n\nGold reward of the kept sample, expected over all sets of N of a prompt's {rewards.shape[1]} "
        f"reference samples; {len(rewards)} test prompts, 95 % over prompts. Best-of-N keeps the sample that the learned "
        f"reward scores highest; Best-of-N-GT the one that the gold reward does.\n\n{cells.to_markdown(index=False)}\n\n"
        f"![reward against N](best_of_n.png)\n\n## The paper's numbers\n\n{PAPER.strip()}\n"
    )
    write_atomically(out / "summary.md", lambda path: path.write_text(page))
    print(f"{page}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))


if __name__ == "__main__":
    sys.exit(main())
