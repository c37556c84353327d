"""A finished plan → results on disk: records, figure, summary, samples, deviations."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from suite.comparisons import compare, frontiers
from suite.figures import summary
from suite.figures.results import Results, draw_all
from suite.files import write_atomically
from suite.runs import collect
from suite.runs.collect import Tables, tables_of
from suite.runs.deviations import deviations
from suite.runs.health import degenerate_samples
from suite.runs.plan import Plan
from suite.runs.reuse import together, write_runs
from suite.runs.run_store import facts
from suite.runs.study import rates_note
from suite.runs.sweep import closure

EQUAL_KL = (
    "Each method's policies on the hull of its *validation* points (mixtures of two policies reach the line between "
    "them), of Best-of-N every N, measured on *test* prompts; beyond what a method reaches, its last. A method with few "
    "settings is compared by "
    "the lines between them: what other settings of it would reach is not known. Brackets: 95 % bootstrap percentiles "
    "over prompts and training seeds; with one seed they are conditional on the trained policies, with two they "
    "understate how much seeds matter. p-values: the same bootstrap, paired by prompt, Holm over the {comparisons} "
    "comparisons of this table; ≤ marks the smallest that the bootstrap can give; tied means p > 0.05. A gap that would "
    "show is the smallest that as many prompts and seeds find with 80 % power. The ideal gain is that of the black line of "
    "the figure, a bracket where the ideal is one."
)
PAPER = (
    "The paper's Fig. 2 left (gpt2-large, completions of about 60 tokens; it prints no numbers, these were read off): DPO "
    "about 0.9 at 1 to 2 nats, PPO 0.85 to 0.9 at 10 to 12, PPO with TRL's defaults 0.7 to 0.8."
)
EQUAL_COMPUTE = (
    "Each method's policy with the most validation reward, whatever the KL, measured on test prompts; 95 % over prompts for "
    "the trained policies at hand, not corrected for multiple comparisons. Compute in forward tokens: a token through the "
    "model is 1, with its backward pass 3; the completions of the pairs, log π_ref and the reward model are included where "
    "a method needs them; labels are free. Best-of-N, which costs N completions each time it is asked, is left out."
)


def write_report(
    runs: Path, plan: Plan, *, out: Path, workers: int, command: str, heading: Sequence[str], against: str = "DPO",
    recorded: Tables | None = None,
) -> str:  # fmt: skip
    """Write to `out` the tables (`records.csv`, `per_prompt.parquet`, `training.parquet`, `health.csv`, `ideal.csv`,
    `comparisons.csv`, `about.json`, `runs.json`), the figures drawn from them, `samples.md` and `summary.md`.

    Args:
        runs: Where the plan's runs are.
        plan: What was run.
        out: Folder of results.
        workers: Processes that were used.
        command: That was given.
        heading: First lines of the summary: title, data.
        against: The method that the others are compared with.
        recorded: Of other methods, measured before on the same prompts (`suite.runs.reuse`).

    Returns:
        The summary, to be printed.
    """
    tables = tables_of(runs, plan, experiment=out.name)
    if recorded is not None:
        tables = together(tables, recorded)
    records, numbers = tables.records, tables.numbers
    collect.write_records(out, records, numbers)
    write_atomically(out / "training.parquet", lambda path: tables.training.to_parquet(path, index=False))
    write_table(out / "health.csv", tables.health)
    study = plan.study
    about = {
        "profile": study.profile, "seeds": sorted({run.seed for run in plan.trained}),
        "labels": study.labels if study.task == "imdb_sentiment" else "given",
        "test_prompts": int(numbers[numbers["split"] == "test"]["prompt_id"].nunique()),
        "samples_per_prompt": study.samples_per_prompt, "max_new_tokens": study.max_new_tokens, "pool_size": study.pool_size,
        "reward": study.reward_name, "reward_maximum": study.reward_maximum,
    }  # fmt: skip
    write_atomically(out / "about.json", lambda path: path.write_text(json.dumps(about, indent=1) + "\n"))
    write_runs(runs, plan, out)
    (out / "ideal.csv").unlink(missing_ok=True)  # of another run in the same folder
    if tables.ideal is not None:
        write_table(out / "ideal.csv", tables.ideal)
    results = Results(out)
    comparison = compare(frontiers(records, numbers), against=against, ideal=results.ideal)
    write_table(out / "comparisons.csv", comparison)
    draw_all(out)
    samples = collect.sample_completions_of(runs, plan, prompts=4)
    degenerate = degenerate_samples(runs, plan, tables.health)
    write_atomically(out / "samples.md", lambda path: path.write_text(summary.samples_page(samples, degenerate)))
    page = summary_page(runs, plan, results, comparison, command=command, workers=workers, heading=heading, against=against)
    write_atomically(out / "summary.md", lambda path: path.write_text(page))
    return page


def write_deviations(out: Path, plan: Plan, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> None:
    """`deviations.md`: where a run of the paper's own experiment departs from the paper."""
    table = deviations(plan.study, grid, seeds)
    text = "# Deviations from the paper's protocol\n\nWritten by the run itself.\n\n" + table.to_markdown(index=False) + "\n"
    write_atomically(out / "deviations.md", lambda path: path.write_text(text))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """CSV with six significant digits, replaced in one step."""
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False, float_format="%.6g"))


def sentiment_heading(runs: Path, plan: Plan) -> list[str]:
    """Title and data of the controlled sentiment experiment."""
    study = plan.study
    counts = json.loads((plan.pairs.directory(runs) / "counts.json").read_text())
    return [
        "# Reward-KL frontier, controlled sentiment",
        f"- profile **{study.profile}**: reference `{Path(study.reference).name}`, "
        f"gold reward `{Path(study.gold_reward).name}`, {study.reward_name}",
        f"- {study.train_prompts} training prefixes × {study.completions_per_prompt} completions: {counts['pairs']} pairs "
        f"({study.labels} labels), {counts['dropped_identical']} identical and {counts['dropped_tied']} tied dropped",
    ]


def summary_page(
    runs: Path, plan: Plan, results: Results, comparison: pd.DataFrame, *, command: str, workers: int,
    heading: Sequence[str], against: str,
) -> str:  # fmt: skip
    """The Markdown summary, also printed."""
    study, records, numbers = plan.study, results.records, results.numbers
    measured = [facts(runs, spec).get("sampler_kl", 0.0) for spec in closure(plan.targets)]
    sampler = max(records[records["metric"] == "sampler_kl"]["value"].max(), *measured)
    seconds = sum(facts(runs, spec)["seconds"] for spec in closure(plan.targets))
    title, *data = heading
    lines = [
        title,
        "",
        f"`{command}`  ",
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, {workers} workers, device {study.device}; "
        f"{seconds / 60:.1f} worker-minutes in all runs together",
        "",
        *data,
        f"- self-test at step 0 (fp32): KL = 0 and DPO loss = log 2 to 1e-4, passed by all {len(plan.trained)} training runs",
        f"- KL(sampler‖scorer) at most {sampler:.4f} nats per completion in any stage (training data and pool drawn in "
        f"{study.sampler_dtype}, evaluation in float32)",
        *([f"- {note}"] if (note := rates_note(study)) else []),
        "",
        *(
            f"- **alarm**: {row['method']} {row['setting']} seed {row['seed']} step {row['step']}: {row['alarms']}"
            for _, row in results.health[results.health["alarms"] != ""].iterrows()
        ),
        "",
        "![frontier](frontier.png)",
        "",
        "## Reward at equal KL",
        "",
        EQUAL_KL.format(comparisons=comparison["p"].notna().sum() if "p" in comparison else 0),
        "",
        summary.matched_kl_table(comparison, against=against),
        "",
        *([PAPER, ""] if study.task == "imdb_sentiment" else []),
        "## Reward within a compute budget",
        "",
        EQUAL_COMPUTE,
        "",
        summary.compute_table(records, numbers, summary.compute_budgets(records, against=against), against=against),
        "",
        "![budgets](budgets.png)",
        "",
        "## What a run costs",
        "",
        summary.cost_table(records),
        "",
        *_on_policy_sections(runs, plan, results.training),
        "## Generation health",
        "",
        "First completion per test prompt; alarms are judged beside the reference (`suite/evaluation/generation_health.py`).",
        "",
        summary.health_page_table(results.health),
        "",
        "![training](training.png)",
        "",
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
    if plan.reward_model.key in {spec.key for spec in closure(plan.targets)}:
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
