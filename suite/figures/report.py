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
    """Write `records.csv`, `per_prompt.parquet`, `frontier.png|svg`, `samples.md`, `deviations.md` and `summary.md` to `out`.

    Returns:
        The summary, to be printed.
    """
    records, numbers = records_module.collect(runs, plan, experiment="imdb_frontier")
    records_module.write_records(out, records, numbers)
    draw(out, records, plan)
    samples = records_module.sample_completions_of(runs, plan, prompts=4)
    write_atomically(out / "samples.md", lambda path: path.write_text(summary.samples_page(samples)))
    table = deviations(plan.study, grid, seeds)
    text = "# Deviations from the paper's protocol\n\nWritten by the run itself.\n\n" + table.to_markdown(index=False) + "\n"
    write_atomically(out / "deviations.md", lambda path: path.write_text(text))
    page = summary_page(runs, plan, records, numbers, command=command, workers=workers)
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


def summary_page(runs: Path, plan: Plan, records: pd.DataFrame, numbers: pd.DataFrame, *, command: str, workers: int) -> str:
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
        "## Every point (test prompts)",
        "",
        summary.points_table(records),
        "",
    ]
    return "\n".join(lines)
