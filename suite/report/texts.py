"""What caption and page of a win-rate study say beside the numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.curves import beats_half
from suite.analysis.verdict import WORDS
from suite.common.registry import load
from suite.evaluation.win_rate import WinRate
from suite.interfaces import Task
from suite.maths.statistics import clustered_share_interval
from suite.report.deviations import text_deviations
from suite.report.page import interval, page, plain, table
from suite.study.plan import Plan
from suite.study.run import Finished
from suite.study.study import rates_note
from suite.tasks.splits import MADE_UP
from suite.training.settings import OptimConfig

MADE_UP_WORDS = "Made-up texts and a model of film reviews: this shows that the pipeline runs, and nothing else."


def win_rate_about(finished: Finished, *, title: str, judge: str, template: str, **more: Any) -> dict[str, Any]:
    """What caption and page say of a win-rate study (`suite.report.curves.write_curves`): judge, opponent, settings,
    and where it departs from the paper.

    Args:
        finished: From `suite.study.run`.
        title: Of figure and page.
        judge: The judge's name.
        template: What it is asked; empty for a reward model.
        more: Further entries.
    """
    plan = finished.plan
    study, test = plan.study, plan.prompts["test"]
    task: Task = load(test.config["task"], "task")
    own = not study.answers and test.config["task"] == plan.source.prompts.config["task"]
    opponent = plan.opponent.name if plan.opponent else "the chosen answer" if own else task.reference_answer
    note, judging = rates_note(study), judge_words(judge, template, plan, finished.options.runs)
    model = plain(Path(study.model).name)
    caption = [
        f"Profile {study.profile}, {model}; win rate against {opponent}; n = {test.config['size']} test prompts at most; "
        f"answers of at most {study.max_new_tokens} tokens.",
        f"Judge: {judging}.",
        *([MADE_UP_WORDS] if MADE_UP in (study.source, study.answers) else []),
    ]
    rates = {c.method: rate for c, spec in plan.trained.items() if (rate := spec.config["config"].get("optim", {}).get("lr"))}
    settings = {
        "model": model, "pairs": _name(study.source), "test prompts": _name(test.where["source"]),
        **{
            contender.method: ", ".join(f"{k} {v}" for k, v in spec.config["config"].items() if k not in ("optim", "stop"))
            for contender, spec in plan.policies.items()
        },
        "trained by methods": _optim(study.optim, study.lora_rank),
        "learning rates": ", ".join(f"{name} {rate:g}" for name, rate in rates.items()),
        "chosen": note.partition(":")[0] or "by search",
        "fine-tuning": _optim(study.sft.optim, 0) if study.sft else "none: the model is fine-tuned already",
        "reward models": _optim(study.reward_model, 0), "longest prompt, tokens": study.longest_prompt,
        "longest answer, tokens": study.max_new_tokens, "training seeds": sorted({c.seed for c in plan.trained}),
    }  # fmt: skip
    used = {contender.method: contender.setting for contender in plan.policies}
    temperatures = sorted({planned.point.temperature for planned in plan.points})
    return {
        "title": title, "metric": "win_rate", "label": f"win rate against {opponent}", "caption": caption, "judge": judge,
        "template": template, "settings": settings,
        "deviations": text_deviations(study, plan.task, judging, temperatures, used), **more,
    }  # fmt: skip


def _name(source: str | None) -> str:
    """Of a Hub data set the whole name, of a local one the last part."""
    return "" if source is None else plain(Path(source).name if Path(source).expanduser().exists() else source)


def _optim(optim: OptimConfig, rank: int) -> str:
    weights = f"adapters of rank {rank}" if rank else "all weights"
    return f"{weights}, batch {optim.batch_size}, {optim.num_epochs} epoch(s), {optim.precision}, lr {optim.lr:g} unless named"


def judge_words(name: str, template: str, plan: Plan, runs: Path) -> str:
    """Who judges: a study's own reward model with its agreement with people, or a name and a template."""
    if plan.judge_model is None:
        return f"{plain(name)}, template {template}"
    held_out = pd.read_parquet(plan.judge_model.directory(runs) / "held_out.parquet")
    right = clustered_share_interval(held_out["right"], held_out["prompt_id"])
    own = plan.judge_model.key != plan.source.reward_model.key
    whose = "fitted to the half of the pairs that no method sees" if own else "the one that PPO and Best-of-N optimise"
    chance = "" if right.low > 0.5 else ": not shown to be better than chance"
    return (
        f"a reward model, {whose}; it agrees with people on {interval(*right[:3], '.2f')} of "
        f"{len(held_out)} held-out pairs, which also chose its checkpoint{chance}. It reads both answers up to "
        f"{plan.study.max_new_tokens} tokens"
    )


def judged_page(about: Mapping[str, str], result: WinRate) -> str:
    """The page of one matchup: who judged, the counts on one line, then the rates.

    Args:
        about: `matchup`, `judge`, `template` and `order`.
        result: Of `suite.evaluation.win_rate.win_rate`.
    """
    shown = {
        "win rate of the policy": result.win_rate, "length-controlled win rate": result.length_controlled,
        "the two orders name the same position": result.flips, "the longer answer wins": result.longer_wins,
    }  # fmt: skip
    share = f"share, 95 % over {result.win_rate.n:,} prompts"
    rows = [{"": name, share: "–" if found is None else interval(*found[:3])} for name, found in shown.items()]
    rows[0][share] += f", {WORDS[beats_half(result.win_rate.low, result.win_rate.high)]} a draw"
    counts = ", ".join(f"{name} {value:,}" for name, value in asdict(result).items() if name.startswith("n_"))
    asked = f"Judge {plain(about['judge'])}, {about['template']}, order: {about['order']}."
    if result.same_texts:
        asked += (
            " **Both give the same text to every prompt: the win rate is a half by construction, whatever the judge says.**"
        )
    return page(about["matchup"], [("", asked), ("", counts), ("", table(rows))])
