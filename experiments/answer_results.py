"""The results folder of a win-rate experiment: what its page says of the run, and the files. Not a script."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from suite.judges.judging import OWN_JUDGE

if TYPE_CHECKING:
    from answers import Common


def facts_of(
    arguments: Common, study: Any, make: Any, measured: Sequence[Any], judge_spec: Any, template: str, opponent: Any
) -> dict[str, Any]:
    """What caption and page say of a run: judge, data, settings, and where it departs from the paper."""
    from suite.runs.answer_study import REFERENCE_ANSWERS
    from suite.runs.deviations import text_deviations

    prompts = measured[0].answers.prompts
    own_answers = prompts.config["part"] == "test" and prompts.config["task"] == study.task and not study.answers
    against = "the chosen answer" if own_answers else REFERENCE_ANSWERS[prompts.config["task"]]
    if opponent is not None:
        against = f"{opponent.answerer.name}, T = {opponent.temperature:g}"
    judge = f"{arguments.judge}, template {template}"
    if judge_spec:
        whose = "fitted to the half of the pairs that no method sees" if arguments.judge == OWN_JUDGE else (
            "the one that PPO and Best-of-N optimise"
        )  # fmt: skip
        judge = (
            f"a reward model, {whose}; {judge_quality(arguments.runs, judge_spec)}. It reads both answers up to "
            f"{study.max_new_tokens} tokens"
        )
    model = Path(study.model).name
    caption = [
        f"Profile {study.profile}, {model}; win rate against {against}; n = {prompts.config['size']} test prompts at most; "
        f"answers of at most {study.max_new_tokens} tokens.",
        f"Judge: {judge}.",
    ]
    if make.invented:
        caption.append("Made-up texts and a model of film reviews: this shows that the pipeline runs, and nothing else.")
    parts = {"methods": make.methods_texts, "test": prompts}
    if judge_spec and arguments.judge == OWN_JUDGE:
        parts["judge"] = judge_spec.inputs["pairs"]
    counts = {
        name: json.loads((spec.directory(arguments.runs) / "counts.json").read_text()) for name, spec in parts.items()
    }  # fmt: skip
    return {
        "caption": caption, "judge": arguments.judge, "template": template, "profile": study.profile, "data": counts,
        "against": against,
        "deviations": text_deviations(study, arguments.judge, sorted({point.answers.temperature for point in measured}),
                                      {point.answers.answerer.method: point.answers.answerer.setting for point in measured}),
        "settings": {
            "model": model, "pairs": _name(study.pairs), "test prompts": _name(prompts.where["source"]),
            **settings_of(measured), "trained by methods": _of(study.optim, study.lora_rank),
            "learning rates": ", ".join(rates_of(study, measured)) or "the defaults",
            "fine-tuning": _of(study.sft, 0) if study.sft else "none: the model is fine-tuned already",
            "reward models": _of(study.reward_model, 0), "longest prompt, tokens": study.max_prompt_tokens,
            "longest answer, tokens": study.max_new_tokens, "training seed": arguments.seed,
        },
    }  # fmt: skip


def settings_of(measured: Sequence[Any]) -> dict[str, str]:
    """Method → the settings of its runs, without what all share."""
    runs = {point.answers.answerer.method: point.answers.answerer.run for point in measured}
    return {
        method: ", ".join(f"{name} {value}" for name, value in run.config["config"].items() if name not in ("optim", "stop"))
        for method, run in runs.items()
        if run is not None
    }


def _name(source: str) -> str:
    """Of a Hub data set the whole name, of a local one the last part."""
    return Path(source).name if Path(source).expanduser().exists() else source


def rates_of(study: Any, measured: Sequence[Any]) -> list[str]:
    """The learning rates of the study that its methods were trained with."""
    from suite.registry import resolve

    used = {point.answers.answerer.run.config["method"] for point in measured if point.answers.answerer.run is not None}
    return [f"{name} {rate:g}" for name, rate in study.learning_rates.items() if resolve(name) in used]


def _of(optim: Any, rank: int) -> str:
    weights = f"adapters of rank {rank}" if rank else "all weights"
    return f"{weights}, batch {optim.batch_size}, {optim.num_epochs} epoch(s), {optim.precision}, lr {optim.lr:g} unless named"


def write_results(out: Path, tables: Sequence[pd.DataFrame], about: Mapping[str, Any], *, paper: str) -> None:
    """`win_rates.csv`, `per_prompt.parquet`, `verdicts.csv`, `about.json`, the figure and `summary.md`."""
    from suite.figures.win_rates import draw_all
    from suite.figures.win_rates_page import page
    from suite.files import write_atomically

    table, numbers, verdicts = tables
    verdicts = verdicts.assign(template=about["template"])
    write_atomically(out / "win_rates.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    write_atomically(out / "per_prompt.parquet", lambda path: numbers.to_parquet(path, index=False))
    write_atomically(out / "verdicts.csv", lambda path: verdicts.to_csv(path, index=False))
    write_atomically(out / "about.json", lambda path: path.write_text(json.dumps(about, indent=1) + "\n"))
    draw_all(out)
    command = shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = page(table, numbers, about, command=command, day=date.today(), paper=paper)
    write_atomically(out / "summary.md", lambda path: path.write_text(text))
    print(f"\n{text}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))


def judge_quality(root: Path, spec: Any) -> str:
    """How often the study's own judge ranks held-out pairs as people did."""
    from suite.maths.statistics import clustered_share_interval

    held_out = pd.read_parquet(spec.directory(root) / "held_out.parquet")
    right = clustered_share_interval(held_out["right"], held_out["prompt_id"])
    words = (
        f"it agrees with people on {right.mean:.2f} [{right.low:.2f}, {right.high:.2f}] of {len(held_out)} held-out pairs, "
        "which also chose its checkpoint"
    )
    return words if right.low > 0.5 else f"{words}: not shown to be better than chance"
