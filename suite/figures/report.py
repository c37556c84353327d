"""A finished plan → results on disk: records, figure, summary, samples, deviations."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from suite.figures import plots, summary
from suite.runs import records as records_module
from suite.runs.costs import training_metrics
from suite.runs.deviations import deviations
from suite.runs.records import REFERENCE
from suite.runs.run_store import facts, write_atomically
from suite.runs.study import Plan
from suite.runs.sweep import closure

CAPTION_WIDTH = 125
"""Characters of a caption line that fit on the figure."""


def write_report(
    runs: Path, plan: Plan, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int],
    *, out: Path, workers: int, command: str,
) -> str:  # fmt: skip
    """Write `records.csv`, `per_prompt.parquet`, `training.parquet`, `frontier.png|svg`, `budgets.png|svg`, `samples.md`,
    `deviations.md` and `summary.md` to `out`.

    Returns:
        The summary, to be printed.
    """
    records, numbers = records_module.collect(runs, plan, experiment="imdb_frontier")
    records_module.write_records(out, records, numbers)
    training = training_metrics(runs, plan)
    write_atomically(out / "training.parquet", lambda path: training.to_parquet(path, index=False))
    draw(out, records, plan)
    draw_budgets(out, records, numbers)
    samples = records_module.sample_completions_of(runs, plan, prompts=4)
    write_atomically(out / "samples.md", lambda path: path.write_text(summary.samples_page(samples)))
    table = deviations(plan.study, grid, seeds)
    text = "# Deviations from the paper's protocol\n\nWritten by the run itself.\n\n" + table.to_markdown(index=False) + "\n"
    write_atomically(out / "deviations.md", lambda path: path.write_text(text))
    page = summary_page(runs, plan, records, numbers, training, command=command, workers=workers)
    write_atomically(out / "summary.md", lambda path: path.write_text(page))
    return page


def draw(out: Path, records: pd.DataFrame, plan: Plan) -> None:
    """`frontier.png` and `frontier.svg`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "frontier"  # the same figure gives the same file
    table = records_module.wide(records, "test")
    figure, ax = pyplot.subplots(figsize=(7.2, 5.4))
    notes = plots.reward_kl_frontier(table, ax, reference=REFERENCE)
    study = plan.study
    seeds = sorted({run.seed for run in plan.trained})
    caption = [
        f"Profile {study.profile}: n = {study.test_prompts} test prompts, {study.samples_per_prompt} completion(s) each, "
        f"at most {study.max_new_tokens} tokens; {study.labels} labels; training seed(s) {', '.join(map(str, seeds)) or '–'}.",
        f"SFT and Best-of-N: {study.pool_size} reference samples per prompt.",
        "Bars: 95 % over prompts. Lines: frontier chosen on validation prompts, drawn at test values.",
        *notes,
    ]
    caption = [line for text in caption for line in textwrap.wrap(text, width=CAPTION_WIDTH)]
    figure.suptitle("Gold reward against KL to the reference", fontsize=11)
    figure.text(0.02, 0.01, "\n".join(caption), fontsize=7, va="bottom")
    figure.subplots_adjust(left=0.1, right=0.97, top=0.92, bottom=0.13 + 0.025 * len(caption))
    write_atomically(out / "frontier.png", lambda path: figure.savefig(path, format="png", dpi=160))
    write_atomically(out / "frontier.svg", lambda path: figure.savefig(path, format="svg", metadata={"Date": None}))
    pyplot.close(figure)


def draw_budgets(out: Path, records: pd.DataFrame, numbers: pd.DataFrame) -> None:
    """`budgets.png` and `budgets.svg`: reward at equal KL beside reward at equal compute."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "budgets"
    validation, test = (records_module.over_seeds(records_module.wide(records, split)) for split in ("validation", "test"))
    test = summary.with_reward_intervals(test, numbers)
    figure, axes = pyplot.subplots(1, 2, figsize=(10.5, 4.9), sharey=True)
    for ax, of in zip(axes, ("kl", "compute"), strict=True):
        plots.reward_within_budget(validation, test, ax, of=of, reference=REFERENCE)
    axes[0].legend(fontsize=7, loc="lower right")
    axes[1].set_ylabel("")
    figure.suptitle("Best policy within a KL budget (left) and within a compute budget (right)", fontsize=11)
    figure.text(
        0.02, 0.01, "Chosen by validation reward, drawn at test reward; bars: 95 % over prompts, training seeds averaged. "
        "Compute includes the completions of the pairs and the reward model;\nBest-of-N, which costs N completions each time "
        "it is asked, is left out on the right.", fontsize=7, va="bottom",
    )  # fmt: skip
    figure.subplots_adjust(left=0.07, right=0.98, top=0.91, bottom=0.19, wspace=0.06)
    write_atomically(out / "budgets.png", lambda path: figure.savefig(path, format="png", dpi=160))
    write_atomically(out / "budgets.svg", lambda path: figure.savefig(path, format="svg", metadata={"Date": None}))
    pyplot.close(figure)


def summary_page(
    runs: Path, plan: Plan, records: pd.DataFrame, numbers: pd.DataFrame, training: pd.DataFrame, *, command: str, workers: int
) -> str:
    """The Markdown summary, also printed."""
    study = plan.study
    counts = json.loads((plan.pairs.directory(runs) / "counts.json").read_text())
    measured = [facts(runs, spec).get("sampler_kl", 0.0) for spec in closure(plan.targets)]
    sampler = max(records[records["metric"] == "sampler_kl"]["value"].max(), *measured)
    seconds = sum(facts(runs, spec)["seconds"] for spec in closure(plan.targets))
    lines = [
        "# Reward-KL frontier, controlled sentiment",
        "",
        f"`{command}`  ",
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, {workers} workers, device {study.device}; "
        f"{seconds / 60:.1f} worker-minutes in all runs together",
        "",
        f"- profile **{study.profile}**: reference `{Path(study.reference).name}`, "
        f"gold reward `{Path(study.gold_reward).name}`",
        f"- {study.train_prompts} training prefixes × {study.completions_per_prompt} completions: {counts['pairs']} pairs "
        f"({study.labels} labels), {counts['dropped_identical']} identical and {counts['dropped_tied']} tied dropped",
        f"- self-test at step 0 (fp32): KL = 0 and DPO loss = log 2 to 1e-4, passed by all {len(plan.trained)} training runs",
        f"- KL(sampler‖scorer) at most {sampler:.4f} nats per completion in any stage (training data and pool drawn in "
        f"{study.sampler_dtype}, evaluation in float32)",
        "",
        "![frontier](frontier.png)",
        "",
        "## Reward within a KL budget",
        "",
        "Each method's policy with the most *validation* reward among those whose validation KL is within the budget; "
        "numbers are from *test* prompts, brackets are 95 % over prompts for the trained policies at hand (not over "
        "training seeds; not corrected for multiple comparisons).",
        "",
        summary.budget_table(records, numbers),
        "",
        "## Reward within a compute budget",
        "",
        "As above, whatever the KL. Compute in forward tokens: a token through the model is 1, with its backward pass 3; the "
        "completions of the pairs, log π_ref and the reward model are included where a method needs them; labels are free. "
        "Best-of-N, which costs N completions each time it is asked, is left out.",
        "",
        summary.budget_table(records, numbers, of="compute", budgets=summary.compute_budgets(records)),
        "",
        "![budgets](budgets.png)",
        "",
        "## What a run costs",
        "",
        summary.cost_table(records),
        "",
        *_on_policy_sections(runs, plan, training),
        "## Every point (test prompts)",
        "",
        summary.points_table(records),
        "",
    ]
    return "\n".join(lines)


def _on_policy_sections(runs: Path, plan: Plan, training: pd.DataFrame) -> list[str]:
    """The learned reward's quality and where runs with a target KL settled, for the methods that have them."""
    lines: list[str] = []
    targets = {
        (run.method, run.label): run.train.config["config"]["target_kl"]
        for run in plan.trained
        if run.train.config["config"].get("target_kl") is not None
    }
    if targets:
        lines += ["## On-policy runs, means over the last quarter", "", summary.controller_table(training, targets), ""]
    if plan.reward_model in closure(plan.targets):
        held_out = pd.read_parquet(plan.reward_model.directory(runs) / "held_out.parquet")
        quality = json.loads((plan.reward_model.directory(runs) / "quality.json").read_text())
        lines += [
            "## Reward model", "",
            f"Calibration error {summary.calibration(held_out)[1]:.3f}; kept: step {quality['step']}, of "
            + ", ".join(f"{step} ({accuracy:.3f})" for step, accuracy in quality["accuracy_by_step"].items())
            + " by accuracy on these pairs, which therefore flatters it a little.",
            "", summary.reward_model_table(held_out), "",
        ]  # fmt: skip
    return lines
