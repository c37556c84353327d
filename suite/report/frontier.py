"""The results folder of a frontier study: tables, figures, samples and the page, from its results alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.convergence import last_doubling
from suite.analysis.equal_compute import compare_within, compute_budgets
from suite.analysis.equal_kl import compare, frontiers, lines_of
from suite.analysis.gather import gather
from suite.analysis.records import Results, over_seeds, read_results, sick, wide, with_reward_intervals
from suite.analysis.reuse import together
from suite.analysis.verdict import FEWEST_SEEDS
from suite.report import figures, tables
from suite.report.deviations import Item
from suite.report.files import captioned, figure_file
from suite.report.page import Section, Verdict, bullets, origin, said_in
from suite.report.samples import samples_table, write_samples
from suite.report.study_folder import write_folder
from suite.report.tables import held_out_pairs
from suite.study.plan import REFERENCE
from suite.study.run import Finished
from suite.study.study import rates_note


def write_frontier(
    finished: Finished, out: Path, *, title: str, data: Sequence[str], against: str = "DPO", recorded: Results | None = None,
    paper: str = "", verdict: Verdict | None = None, prompts: int = 4, behind: Path | None = None,
    deviations: Sequence[Item] = (),
) -> str:  # fmt: skip
    """Write a finished study to `out`, and return the page to be read first.

    Args:
        finished, out: From `suite.study.run`, and the folder of results.
        title, data: Of the page, and its lines on models and data.
        against: The method that the others are compared with.
        recorded: Of other methods, measured before on the same prompts (`suite.analysis.reuse`).
        paper: What the paper has, in words.
        verdict: Makes a page of its own, which is then the first to be read.
        prompts: Test prompts of `samples.md`.
        behind: Results folder of a larger study, whose frontiers are drawn behind and whose page has the verdict.
        deviations: From the paper's protocol, for `report.html`.
    """
    results = gather(finished, out.name)
    results = replace(results, samples=samples_table(finished, results, prompts=prompts))
    if recorded is not None:
        results = together(results, recorded)
    note = rates_note(finished.plan.study)
    results.about.update(
        title=title, lines=[*data, *([note] if note else [])], against=against, paper=paper, deviations=deviations
    )
    if behind is not None:
        larger = read_results(behind)
        seeds, prompts_there = larger.about["seeds"], larger.about["test_prompts"]
        words = f"`{behind}`, {len(seeds)} training seeds ({', '.join(map(str, seeds))}) and {prompts_there} test prompts"
        results.about["behind"] = words
        results = replace(results, behind=lines_of(larger))
    return write_page(out, results, verdict=verdict, samples=finished.options.page_samples)


def write_page(out: Path, results: Results, *, verdict: Verdict | None = None, samples: int = 0) -> str:
    """Tables, figures and pages of results that are complete, `samples` prompts with texts; the page to be read first."""
    if results.samples is not None:
        write_samples(out, results)
    against = results.about["against"]
    comparison = compare(
        frontiers(results.records, results.measurements), against=against, ideal=results.ideal_frontier,
        unsearched=results.about["unsearched"],
    )  # fmt: skip
    return write_folder(
        out, results, comparison, frontier_sections(results, comparison), draw=draw, verdict=verdict, samples=samples
    )


def frontier_sections(results: Results, comparison: pd.DataFrame) -> list[Section]:
    """The page of a frontier study."""
    about, records, against = results.about, results.records, results.about["against"]
    sampler = max(records.loc[records["metric"] == "sampler_kl", "value"].max(), about["sampler_kl"])
    ill = sick(results.health)
    lines = [
        *about["lines"],
        *([f"what holds for methods is said by {about['behind']}"] if "behind" in about else []),
        f"self-test at step 0 (fp32): KL = 0 and DPO loss = log 2 to 1e-4, passed by all {about['trained_runs']} training runs",
        f"KL(sampler‖scorer) at most {sampler:.4f} nats per completion in any stage (training data and pool drawn in "
        f"{about['sampler_dtype']}, evaluation in float32)",
        *(f"**alarm**: {r.method} {r.setting} seed {r.seed} step {r.step}: {r.alarms}" for r in ill.itertuples()),
    ]
    budgets = compute_budgets(records, against=against)
    within = compare_within(records, results.measurements, budgets, against=against, unsearched=about["unsearched"])
    words, tested = said_in("words")["frontier"], comparison["p"].notna().sum() if "p" in comparison else 0
    return [
        ("", origin(about)), ("", bullets(lines)), ("", "![frontier](frontier.svg)"),
        ("Reward at equal KL", words["equal_kl"].format(comparisons=tested)),
        ("", tables.matched_kl_table(comparison, against=against)),
        ("", about["paper"]),
        ("Is it converged?", converged(results)),
        ("Reward within a compute budget", words["equal_compute"] + "\n\n" + tables.compute_table(within, against=against)),
        ("", "![budgets](budgets.svg)"), ("What a run costs", tables.cost_table(records)),
        ("On-policy runs, means over the last quarter", on_policy(results)),
        ("Reward model", reward_model_section(results)),
        ("Generation health", "First completion per test prompt; alarms are judged beside the reference "
         "(`suite/evaluation/generation_health.py`).\n\n" + tables.health_page_table(results.health)),
        ("", "![training](training.svg)" if len(results.training) else ""),
        ("Data", tables.data_table(about["data"])), ("Every point (test prompts)", tables.points_table(records)),
    ]  # fmt: skip


def on_policy(results: Results) -> str:
    """Where runs on their own samples settled, and what their β means."""
    targets = {(method, setting): target for method, setting, target in results.about["targets"]}
    found = tables.controller_table(results.training, targets)
    return f"{said_in('words')['frontier']['on_policy']}\n\n{found}" if found else ""


def converged(results: Results) -> str:
    """What the last doubling of every run has changed, and whether that is more than its interval."""
    moved = last_doubling(results.records, results.measurements)
    if moved.empty:
        return ""
    known = moved.dropna(subset="difference")
    still = [f"{row.method} at {row.kl_budget:g} nats" for row in known.itertuples() if row.low > 0 or row.high < 0]
    far = [
        str(method) for method, part in moved.groupby("method", sort=False) if (part["reach"] > 1.2 * part["reach_half"]).all()
    ]
    words = said_in("words")["frontier"]["converged"]
    verdict = f"**Still moving: {', '.join(still)}.**" if still else "At no budget is the change more than its interval."
    going = f" Runs of {', '.join(far)} were still going away from the reference." if far else ""
    return f"{words} {verdict}{going}\n\n{tables.convergence_table(moved)}\n\n![reward and KL over training](steps.svg)"


def reward_model_section(results: Results) -> str:
    """The learned rewards' quality; empty without any."""
    found: dict[str, Any] = results.about["reward_model"]
    if not found:
        return ""
    held_out = held_out_pairs(found)
    kept = "; ".join(
        f"seed {seed}: step {quality['step']}, of "
        + ", ".join(f"{step} ({accuracy:.3f})" for step, accuracy in quality["accuracy_by_step"].items())
        for seed, quality in found.items()
    )
    return (
        f"Calibration error {tables.calibration(held_out)[1]:.3f}. Kept by accuracy on these pairs, which therefore flatters "
        f"it a little: {kept}.\n\n{tables.reward_model_table(held_out)}"
    )


def draw(results: Results, out: Path) -> list[Path]:
    """Every figure of a frontier study; returns what was written."""
    return [
        *draw_frontier(results, out), *draw_budgets(results, out), *draw_steps(results, out), *draw_training(results, out)
    ]  # fmt: skip


def draw_frontier(results: Results, out: Path) -> list[Path]:
    """`frontier`: reward against KL, and where it is a probability its log-odds below. Also as PNG, for the README."""
    about, table = results.about, wide(results.records, "test")
    panels = [metric for metric in ("reward", "log_odds") if metric in table]
    with figure_file(out / "frontier", (7.2, 3.0 + 2.6 * len(panels)), rows=len(panels), png=True) as (figure, axes, written):
        axes = np.atleast_1d(axes)
        notes: list[str] = []
        for metric, ax in zip(panels, axes, strict=True):
            lines = frontiers(results.records, results.measurements, metric)
            ideal = results.ideal_frontier if metric == "reward" else None
            notes += figures.reward_kl_frontier(
                table, ax, reference=REFERENCE, lines=lines, metric=metric, ideal=ideal, health=results.health,
                behind=results.behind,
            )  # fmt: skip
            if ax is not axes[0]:
                ax.get_legend().remove()
        for ax in axes[:-1]:
            ax.set_xlabel("")
        axes[-1].set_ylabel("mean log-odds of the same, nats")
        ax = axes[0]
        seeds = ", ".join(map(str, results.about["seeds"])) or "–"
        few, known = "Points: one a seed; two seeds have no interval", len(about["seeds"])
        bars = "Bars: 95 % over prompts" if known < 2 else few if known < FEWEST_SEEDS else "Bands: 95 % over seeds and prompts"
        caption = [
            f"Profile {about['profile']}: n = {about['test_prompts']} test prompts, completions of at most "
            f"{about['max_new_tokens']} tokens; {about['labels']} labels; training seed(s) {seeds}.",
            f"SFT and Best-of-N: {about['pool_size']} reference samples per prompt.",
            f"{bars}. Lines: hulls chosen on validation prompts, drawn at test values, mean over seeds; dashed where not every "
            "seed has policies on both sides.",
            *([f"Broad and pale: {about['behind']}."] if results.behind is not None else []),
            *dict.fromkeys(notes),
        ]
        ax.set_ylabel(f"gold reward, {about['reward']}")
        captioned(figure, "Gold reward against KL to the reference", caption)
    return written


def draw_budgets(results: Results, out: Path) -> list[Path]:
    """`budgets`: reward at equal KL beside reward at equal compute."""
    validation, test = (over_seeds(wide(results.records, split)) for split in ("validation", "test"))
    test = with_reward_intervals(test, results.measurements)
    with figure_file(out / "budgets", (10.5, 4.9), columns=2) as (figure, axes, written):
        for ax, of in zip(axes, ("kl", "compute"), strict=True):
            figures.reward_within_budget(validation, test, ax, of=of, reference=REFERENCE)
        axes[0].legend(fontsize=7, loc="lower right")
        axes[0].set_ylabel(f"gold reward, {results.about['reward']}")
        axes[1].set_ylabel("")
        captioned(figure, "Best policy within a KL budget (left) and within a compute budget (right)", [
            "Chosen by validation reward, drawn at test reward; bars: 95 % over prompts, training seeds averaged.",
            "Compute includes the completions of the pairs and the reward model; Best-of-N, which costs N completions each "
            "time it is asked, is left out on the right.",
        ])  # fmt: skip
    return written


def draw_steps(results: Results, out: Path) -> list[Path]:
    """`steps`: reward and KL of the policies kept, against the share of the run."""
    test = wide(results.records, "test")
    if not (test["step"] > 0).any():
        return []
    with figure_file(out / "steps", (7.2, 7.6), rows=2) as (figure, axes, written):
        figures.over_training(test, axes)
        axes[0].set_xlabel("")
        axes[0].legend(fontsize=6)
        captioned(figure, "Reward and KL over training", [
            f"Means over {results.about['test_prompts']} test prompts and the training seeds; pale: the range of the seeds.",
            "A policy is kept after the last step, half of it, a quarter, …",
        ])  # fmt: skip
    return written


def draw_training(results: Results, out: Path) -> list[Path]:
    """`training`: what the runs of the first seed logged, one panel per diagnostic."""
    training = results.training
    if training.empty:
        return []
    with figure_file(out / "training", (11, 8.6), columns=3, rows=3) as (figure, axes, written):
        first = training["seed"].min()
        figures.training_diagnostics(training[training["seed"] == first], axes.ravel())
        figure.suptitle(f"Training diagnostics, seed {first}, moving average over a tenth of the run", fontsize=11)
        handles, names = axes.ravel()[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=6, loc="lower center", ncol=6)
        bottom = 0.1 + 0.02 * (1 + len(names) // 6)
        figure.subplots_adjust(left=0.05, right=0.99, top=0.9, bottom=bottom, wspace=0.28, hspace=0.4)
    return written
