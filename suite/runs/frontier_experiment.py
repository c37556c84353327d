"""From a plan to results on disk: run the sweep, collect records, draw the figure, write the tables."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from suite.errors import UserError
from suite.figures import plots, summary
from suite.runs import records as records_module
from suite.runs.deviations import deviations
from suite.runs.records import REFERENCE
from suite.runs.run_store import facts, status, write_atomically
from suite.runs.study import Plan
from suite.runs.sweep import closure, quiet_libraries, run_sweep


def print_plan(runs: Path, plan: Plan) -> None:
    """Every run of the plan: stage, title, and whether it is cached, resumes, is to run, or has changed code."""
    rows = [(spec.stage, spec.title, status(runs, spec), spec.key[:16]) for spec in closure(plan.targets)]
    print(tabulate(rows, headers=["stage", "run", "status", "key"]))
    counts = pd.Series([row[2] for row in rows]).value_counts()
    print(f"\n{len(rows)} runs: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + f" ({runs})\n", flush=True)


def check_writable(folder: Path) -> None:
    """Find out before the work, not after it.

    Raises:
        UserError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", lambda path: path.write_text(""))
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place with --out or --runs") from error


def run_and_report(
    runs: Path, plan: Plan, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int],
    *, out: Path, workers: int, command: str,
) -> int:  # fmt: skip
    """Run what is not done, then write records, figure, summary, samples and deviations to `out`. 1 if a run failed."""
    for folder in (runs, out):
        check_writable(folder)
    quiet_libraries()
    began = time.monotonic()
    failed = [o for o in run_sweep(runs, plan.targets, workers=workers) if o.status in ("failed", "skipped")]
    if failed:
        print(tabulate([(o.spec.title, o.status, o.error) for o in failed], headers=["run", "status", "why"]))
        return 1
    seconds = time.monotonic() - began
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
    print(f"\n{page}\nsweep: {seconds:.0f} s in this call. Written to {out}: " + ", ".join(sorted(p.name for p in out.iterdir())))
    return 0


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
        "Bars: 95 % over prompts. Lines: frontier chosen on validation prompts, drawn at test values.",
        *notes,
    ]
    figure.suptitle("Gold reward against KL to the reference", fontsize=11)
    figure.text(0.02, 0.01, "\n".join(caption), fontsize=7, va="bottom")
    figure.subplots_adjust(left=0.1, right=0.97, top=0.92, bottom=0.13 + 0.025 * len(caption))
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else {}
        write_atomically(
            out / f"frontier.{kind}", lambda path, k=kind, m=metadata: figure.savefig(path, format=k, dpi=160, metadata=m)
        )
    pyplot.close(figure)


def summary_page(
    runs: Path, plan: Plan, records: pd.DataFrame, numbers: pd.DataFrame, *, command: str, workers: int
) -> str:
    """The Markdown summary, also printed."""
    study = plan.study
    counts = json.loads((plan.pairs.directory(runs) / "counts.json").read_text())
    sampler = records[records["metric"] == "sampler_kl"]["value"].max()
    seconds = sum(facts(runs, spec)["seconds"] for spec in closure(plan.targets))
    lines = [
        "# Reward-KL frontier, controlled sentiment",
        "",
        f"`{command}`  ",
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, {workers} workers, device {study.device}; "
        f"{seconds / 60:.1f} worker-minutes in all runs together",
        "",
        f"- profile **{study.profile}**: reference `{Path(study.reference).name}`, gold reward `{Path(study.gold_reward).name}`",
        f"- {study.train_prompts} training prefixes × {study.completions_per_prompt} completions: {counts['pairs']} pairs "
        f"({study.labels} labels), {counts['dropped_identical']} identical and {counts['dropped_tied']} tied dropped",
        f"- self-test at step 0 (fp32): KL = 0 and DPO loss = log 2 to 1e-4, passed by all {len(plan.trained)} training runs",
        f"- KL(sampler‖scorer) at most {sampler:.4f} nats per completion in any evaluation (sampler {study.sampler_dtype})",
        "",
        "![frontier](frontier.png)",
        "",
        "## Reward within a KL budget",
        "",
        "Each method's policy with the most *validation* reward among those whose validation KL is within the budget; numbers are "
        "from *test* prompts, brackets are 95 % over prompts for the trained policies at hand (not over training seeds; not "
        "corrected for multiple comparisons).",
        "",
        summary.budget_table(records, numbers),
        "",
        "## Every point (test prompts)",
        "",
        summary.points_table(records),
        "",
    ]
    return "\n".join(lines)
