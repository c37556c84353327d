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

from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

from suite.cli.options import JudgeOptions, parse_integers, run_script
from suite.cli.ranges import Temperature
from suite.cli.win_rates import TextOptions, run_win_rates
from suite.common.errors import UserError
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.interfaces import Contender
from suite.report.curves import write_curves
from suite.report.page import said_in
from suite.study.plan import REFERENCE, plan_study
from suite.study.profiles import sentiment_study
from suite.study.run import run_study

TEXTS_ONLY = ("pairs", "answers", "model", "lora_rank", "temperature", *(field.name for field in fields(JudgeOptions)))
"""Options that mean nothing on film reviews."""
MOST_SAMPLES = 1024
"""Of a prompt."""
SIZES = {"smoke": "1,2,4,8", "local": "1,2,4,8,16", "rehearsal": "1,4,8", "paper": "1,4,16,64,128"}


@dataclass(frozen=True)
class Arguments(TextOptions):
    """Command line of the Best-of-N experiment."""

    profile: Literal["smoke", "embedded", "local", "rehearsal", "paper"] = "smoke"  # type: ignore[assignment]
    """As in the other experiments; embedded is for film reviews."""
    task: Literal["hh_dialogue", "tldr_summarization", "imdb_sentiment"] = "hh_dialogue"
    """Where."""
    sizes: str = ""
    """Comma-separated N. Default: 1 to 8 (smoke), to 16 (local), to 128 (paper)."""
    temperature: Temperature = 1.0
    """Of the samples."""


def main(args: Arguments) -> int:
    if args.task == "imdb_sentiment":
        return on_film_reviews(args)
    if args.profile == "embedded":
        raise UserError("--profile embedded is for film reviews (--task imdb_sentiment); here use smoke, local or paper")
    if args.temperature <= 0:
        raise UserError(f"--temperature {args.temperature:g}: expected more than 0; greedy samples are all equal")
    sizes = parse_integers(args.sizes or SIZES[args.profile], "--sizes", example="1,4,16", least=1, most=MOST_SAMPLES)
    evaluator = WinRateEvaluator((args.temperature,), sizes=tuple(sizes))
    name = "best_of_n" + ("" if args.task == "hh_dialogue" else f"_{args.task.partition('_')[0]}")
    return run_win_rates(
        args, args.study(args.task), {"best_of_n": [{"n": n} for n in sizes]}, evaluator, name=name,
        title="Win rate of Best-of-N", reference=False, **said_in("paper")["best_of_n"],
    )  # fmt: skip


def on_film_reviews(args: Arguments) -> int:
    """Expected gold reward for every N, from the pool of reference samples of the frontier experiment."""
    usual = {field.name: field.default for field in fields(Arguments)}
    if given := [f"--{name.replace('_', '-')}" for name in TEXTS_ONLY if getattr(args, name) != usual[name]]:
        raise UserError(f"{', '.join(given)}: --task imdb_sentiment has its own model, prompts, gold reward and temperature")
    if args.profile == "local":
        raise UserError("--profile local is for dialogues and summaries; on film reviews use --profile embedded")
    study = sentiment_study(args.profile, **args.machine)
    usual_sizes = ",".join(n for n in SIZES["paper"].split(",") if int(n) <= study.pool_size)
    asked = parse_integers(args.sizes or usual_sizes, "--sizes", example="1,4,16", least=1, most=study.pool_size)
    sizes = [{"n": n} for n in asked if n > 1]  # 1 is the reference
    if not sizes:
        raise UserError(f"--sizes {args.sizes!r}: expected one of 2 or more; 1 is the reference, which is always there")
    evaluator = RewardKLEvaluator(splits=("test",), panel="best_of_n")
    plan = plan_study(study, {"best_of_n": sizes, "best_of_n_gt": sizes}, evaluator, reference=Contender(REFERENCE))
    caption = [
        f"Gold reward of the kept sample, expected over all sets of N of a prompt's {study.pool_size} reference samples; n = "
        f"{study.test_prompts} test prompts.",
        "Best-of-N keeps the sample that the learned reward scores highest, Best-of-N-GT (hollow) that of the gold reward.",
    ]
    about = {"title": "Best-of-N on film reviews", "metric": "reward", "label": f"gold reward, {study.reward_name}",
             "caption": caption, **said_in("paper")["best_of_n"]}  # fmt: skip
    out = args.folder("best_of_n_imdb", args.profile)
    return run_study(plan, partial(write_curves, about=about), out=out, options=args.run_options())


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
