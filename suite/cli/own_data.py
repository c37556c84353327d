"""Is DPO better than RLHF on your preference data? From the file to a verdict, one command.

Looks at the data, makes a held-out split if there is none, fine-tunes the model on the chosen answers (Preferred-FT: the
reference), fits a reward model, trains the methods, and measures all on the same held-out prompts: by a judge, as win rates
against the chosen answers; or by a reward of yours, as a frontier of reward against KL. The default judge is a reward model
fitted to a half of the pairs that no method sees. Everything is cached and resumable.

Examples:
  suite own-data --pairs pairs.jsonl                 embedded model, on a CPU, minutes
  suite own-data --pairs pairs.jsonl --dry-run       what it would run
  suite own-data --pairs my_data/ --model gpt2 --judge openai:gpt-4o --max-cost 5
  suite own-data --pairs pairs.jsonl --reward my_pkg.rewards:politeness
  suite own-data --pairs safe.jsonl,helpful.jsonl --weights 0.9,0.1 --rating-margins large
  suite own-data --pairs trl-lib/ultrafeedback_binarized --profile paper --model Qwen/Qwen3-0.6B
  suite own-data --task tldr_summarization --pairs comparisons.jsonl --answers tldr.jsonl --reward my_reward_model
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from suite.analysis.records import Results
from suite.cli.options import RESULTS, Unnamed, file_name, parse_temperatures, parse_weights
from suite.cli.ranges import Count, CountOrNone, Name, Names
from suite.cli.win_rates import TextOptions, run_win_rates
from suite.common.errors import UserError, shown
from suite.common.registry import describe
from suite.data.doctor import examine as examine_pairs
from suite.data.doctor import lines_of
from suite.data.readers import names_of
from suite.engine.store import Run
from suite.evaluation.reward_kl_evaluator import RewardKLEvaluator
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.interfaces import Contender, Example, Split
from suite.judges.judging import OWN_JUDGE
from suite.maths.statistics import clustered_share_interval
from suite.report import curves
from suite.report import verdict as frontier_verdict
from suite.report.frontier import write_frontier
from suite.report.page import Verdict, code, page
from suite.report.recommendation import recommendation
from suite.study.plan import REFERENCE, Grid, plan_study
from suite.study.profiles import chosen_grid
from suite.study.run import run_study
from suite.study.specs import Specs, resolve_reward
from suite.study.study import Study, rate_of
from suite.tasks.splits import pairs_of, read_rows, talks

GRIDS: dict[str, Grid] = {
    "win rates": {
        "dpo": [{"beta": 0.1}, {"beta": 0.5}], "ppo": [{"beta": 0.05}, {"beta": 0.2}],
        "unlikelihood": [{"alpha": 0.5}, {"alpha": 1.0}], "best_of_n": [{"n": 8}],
    },
    "frontier": {
        "dpo": [{"beta": 0.1}, {"beta": 1.0}], "ppo": [{"beta": 0.05}, {"beta": 0.2}],
        "unlikelihood": [{"alpha": 0.5}, {"alpha": 1.0}],
        "best_of_n": [{"n": n} for n in (2, 4, 8, 16)],
    },
}  # fmt: skip
STEPS, MOST_EPOCHS = {"smoke": 6}, 8
"""Optimizer steps (60 where none are named) that small data are gone over for, in so many passes at most."""
POOL = 32
"""Reference samples per test prompt, for Best-of-N and the reference."""
FEWEST = 4
"""Test prompts that there must be."""


@dataclass(frozen=True, kw_only=True)
class OwnDataOptions(TextOptions):
    """Options of the experiment on your data."""

    pairs: Name = field()  # type: ignore[assignment]
    """Preference data in any format that TRL documents: file, folder or Hub name, or several with commas between. `suite
    doctor` says what is wrong with it."""
    weights: str = ""
    """Of several sources, the share of each among pairs and prompts: --pairs a.jsonl,b.jsonl --weights 0.9,0.1. Default: all
    that they have."""
    rating_margins: Literal["none", "small", "large"] = "none"
    """Margins of the reward models' loss by the column rating (Touvron et al. 2023): small 0 to 1, large 0 to 3."""
    task: Name = "own_data"
    """How rows are read: own_data takes every format; hh_dialogue, tldr_summarization, or module:Object of your own."""
    profile: Literal["smoke", "embedded", "local", "paper"] = "embedded"  # type: ignore[assignment]
    """Model and sizes where nothing else is said. smoke: as small as can be; embedded: a model of film reviews, CPU; local:
    SmolLM2-135M-Instruct, CPU; paper: Pythia-2.8B, GPU."""
    reward: Name | None = None
    """Measure by this instead of a judge: a two-class classifier or one-label reward model (folder or Hub name), or
    module:function, called with two lists of texts, prompts and completions."""
    methods: Names = ""
    """Comma-separated; default: dpo, ppo, unlikelihood and best_of_n. The reference is always there."""
    samples: CountOrNone = 4
    """Test prompts whose answers samples.md shows."""
    temperatures: str = "1"
    """Of the win rates, comma-separated; 0 is greedy. A frontier is at temperature 1."""
    max_prompt_tokens: Count | None = None
    """Longer prompts are left out. Default, as of the next three: the profile's."""
    max_new_tokens: Count | None = None
    """Longer answers, EOS included, are cut; and so long are those that policies give."""
    train_pairs: Count | None = None
    """Pairs for the methods, at most; and as many for the judge."""
    test_prompts: Count | None = None
    """Prompts to measure on, at most; and as many for validation, where that is needed."""


def own_data(options: Unnamed[OwnDataOptions]) -> int:
    """Look at the data, plan, run, write; the exit code."""
    if options.reward and options.judge != OWN_JUDGE:
        raise UserError("--reward and --judge: give one of them")
    reward = resolve_reward(options.reward)[0] if options.reward else None
    temperatures = parse_temperatures(options.temperatures)
    weights, study = parse_weights(options.weights, options.pairs), options.study(options.task)
    study = replace(study, gold_reward=options.reward, weights=weights, rating_margins=options.rating_margins)
    study = with_sizes(study, options)
    grid = chosen_grid(GRIDS["frontier" if reward else "win rates"], options.methods)
    against = base_of(list(grid))
    counts, found = examine(study)
    study = sized(study, next(iter(counts.values())), snapshots=study.optim.num_snapshots if reward else 1)
    by = file_name(Path(options.reward or options.judge).name)
    model = f"_{Path(options.model).name}" if options.model else ""
    data = "_".join(names_of(options.pairs)).replace("/", "_")
    out = options.out or RESULTS / f"{data}_{study.profile}{model}_by_{by}"
    rates = rates_line(study, list(grid))

    def verdict(results: Results, comparison: pd.DataFrame) -> str:
        """`verdict.md`: what was seen, and what the doctor says of the data."""
        if reward:
            words = [frontier_verdict.verdict(comparison, against)]
        else:
            words = [*results.about["caption"], curves.verdict_words(results, comparison)]
        links = "[Everything that was measured](summary.md)"
        links += " · [sample answers](samples.md)" if options.samples or reward else ""
        sections = [
            *(("", text) for text in (*words, recommendation(results), rates, links)),
            ("The data", "\n".join(f"    {line}" for line in found)),
        ]
        return page("Verdict", sections)

    if reward:
        return frontier(options, study, grid, reward, out=out, data=found[0], against=against, verdict=verdict)
    return run_win_rates(
        options, study, grid, WinRateEvaluator(tuple(temperatures)), name="own_data", title="Win rate on your data", out=out,
        against=against, verdict=verdict,
    )  # fmt: skip


def frontier(
    options: OwnDataOptions, study: Study, grid: Grid, reward: str, *, out: Path, data: str, against: str, verdict: Verdict
) -> int:
    """Reward against KL, measured by the user's reward."""
    name, maximum = reward_scale(str(options.reward), reward)
    study = replace(
        study, validation_prompts=study.test_prompts, pool_size=POOL, ideal_prompts=0, ideal_samples=0, reward_name=name,
        reward_maximum=maximum,
    )  # fmt: skip
    plan = plan_study(study, grid, RewardKLEvaluator(), seeds=[options.seed], reference=Contender(REFERENCE))
    models = (
        f"profile **{study.profile}**: {code(Path(study.model).name)}, fine-tuned on the chosen answers; gold reward "
        f"{code(Path(str(options.reward)).name)}, {name}"
    )
    write = partial(
        write_frontier, title=f"Reward-KL frontier on {Path(options.pairs).name}", data=[models, data], against=against,
        verdict=verdict, prompts=options.samples,
    )  # fmt: skip
    return run_study(plan, write, out=out, options=options.run_options())


def with_sizes(study: Study, options: OwnDataOptions) -> Study:
    """The study with the lengths and sizes of the command line."""
    names = ("max_prompt_tokens", "max_new_tokens", "train_pairs", "test_prompts")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if pairs := given.pop("train_pairs", None):
        study = replace(study, train_size=pairs, judge_pairs=pairs if study.judge_pairs else 0)
    return replace(study, **given)


def sized(study: Study, pairs: int, *, snapshots: int) -> Study:
    """The study with as many passes over its `pairs` as small data need, and no more snapshots than steps."""
    epochs = min(MOST_EPOCHS, max(1, math.ceil(STEPS.get(study.profile, 60) * study.optim.batch_size / pairs)))
    steps = epochs * math.ceil(pairs / study.optim.batch_size)
    fitted = int(0.9 * pairs) // study.reward_model.batch_size * epochs  # a tenth is held out
    changes: dict[str, Any] = {
        "optim": replace(study.optim, num_epochs=epochs, num_snapshots=min(snapshots, steps)),
        "reward_model": replace(
            study.reward_model, num_epochs=epochs, num_snapshots=max(1, min(study.reward_model.num_snapshots, fitted))
        ),
    }
    if study.sft:
        changes["sft"] = replace(study.sft, optim=replace(study.sft.optim, num_epochs=epochs))
    return replace(study, **changes)


def base_of(names: list[str]) -> str:
    """Name of the method that the others are compared with: DPO, or the first that is named and trained."""
    infos = [describe(name) for name in ("dpo", *names) if name in names]
    return ([info for info in infos if info.trained] or infos)[0].name


def rates_line(study: Study, names: Sequence[str]) -> str:
    """Whose learning rates these are."""
    infos = {name: describe(name) for name in names}
    rates = ", ".join(f"{name} {rate_of(study, info):g}" for name, info in infos.items() if info.searched)
    return f"Learning rates were not searched on these data or this model; they are the profile's or the method's: {rates}."


def reward_scale(given: str, resolved: str) -> tuple[str, float]:
    """Name of a reward for tables, and the largest value it can have."""
    from suite.rewards.open_reward import is_function, open_reward

    if is_function(given):
        return given, math.inf
    return ("P(positive)", 1.0) if hasattr(open_reward(resolved), "log_odds") else ("reward model's score", math.inf)


def examine(study: Study) -> tuple[dict[Split, int], list[str]]:
    """How many examples each part has, and what `suite doctor` says of the texts as methods will see them; prints it.
    Raises UserError if there are too few to train on or to measure with, or the gold reward fails on them.
    """
    from suite.study.stages.data import reading_of
    from suite.training.reward_modeling import check_ratings

    specs, lines, more = Specs(study), list[str](), list[str]()
    beside: dict[Split, dict[Split, int]] = {
        "train": {"validation": study.test_prompts}, "methods": {"judge": study.judge_pairs}, "all": {},
    }  # fmt: skip
    part = specs.learns_from
    sizes: dict[Split, int] = {part: study.train_size, **beside[part], "test": study.test_prompts}
    readings = {split: reading_of(Run(Path(), specs.split(split, size)))[1] for split, size in sizes.items()}
    if (form := getattr(specs.task, "form", None)) and study.source:
        tokenizer, splits = readings[part].tokenizer, read_rows(form, study.source, rows=study.rows)
        pairs = pairs_of(form, study.source, splits, tokenizer)
        limits = {"max_prompt_tokens": study.longest_prompt, "max_new_tokens": study.max_new_tokens}
        lines = [
            f"{sum(not pair.fault for pair in pairs):,} pairs of {shown(study.source)}",
            *map(shown, lines_of(examine_pairs(pairs, tokenizer, **limits))),
        ]
        print("\n".join(lines))
        if not getattr(tokenizer, "chat_template", None) and talks(form, splits):
            more = ["note     conversations are written as Human: … Assistant: …, for want of a chat template"]
    found = {split: specs.task.examples(split, size, readings[split])[0] for split, size in sizes.items()}
    check_ratings([example for example in found[part] if example.rejected], study.rating_margins)
    counts = {split: len(examples) for split, examples in found.items()}
    if counts["test"] < FEWEST:
        raise UserError(f"--pairs {study.source}: {counts['test']} test prompts, {FEWEST} or more are needed; use more rows")
    if study.gold_reward:
        more.append(reward_and_labels(study, [example for example in found["test"] if example.rejected]))
    more.append("used: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()))
    print("\n".join(more) + "\n")
    return counts, [*lines, *more]


def reward_and_labels(study: Study, examples: Sequence[Example]) -> str:
    """How often the gold reward prefers the chosen answer, in a line. Raises UserError if the reward fails."""
    from suite.rewards.open_reward import open_reward

    if not examples:
        return "the reward could not be held against labels: no test prompt has two answers"
    prompts = [example.prompt.text for example in examples]
    reward = open_reward(resolve_reward(str(study.gold_reward))[0], device=study.device)
    answers = [[getattr(example, side).text for example in examples] for side in ("chosen", "rejected")]
    try:
        chosen, rejected = ([float(value) for value in reward(prompts, texts)] for texts in answers)
    except Exception as error:  # anybody's code
        raise UserError(f"--reward {study.gold_reward}: fails on test pairs ({type(error).__name__}: {error})") from error
    if not len(chosen) == len(rejected) == len(prompts) or not all(map(math.isfinite, [*chosen, *rejected])):
        raise UserError(f"--reward {study.gold_reward}: expected one finite number per completion")
    right = clustered_share_interval([(a > b) + (a == b) / 2 for a, b in zip(chosen, rejected, strict=True)], prompts)
    return (
        f"your reward prefers the chosen answer in {right.mean:.1%} of {len(examples)} test pairs [{right.low:.1%}, "
        f"{right.high:.1%}]"
    )
