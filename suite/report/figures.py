"""One function per paper figure: records → Axes. They write no files."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.equal_kl import band
from suite.analysis.verdict import FEWEST_SEEDS
from suite.maths.frontier import Frontier, pareto_indices
from suite.report.page import said_in

STYLES = {method: (colour, marker) for method, (colour, marker) in said_in("styles")["methods"].items()}
OTHERS = [("#F0E442", "*"), ("#000000", "H"), ("#999999", "P")]


def styles_of(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: fixed for ours, in order of appearance for others."""
    unknown = [m for m in methods if m not in STYLES]
    return {m: STYLES.get(m) or OTHERS[unknown.index(m) % len(OTHERS)] for m in methods}


def method_in(name: str) -> str:
    """The method that the name of a method with its setting begins with: ours, or the first word of others."""
    ours = [method for method in STYLES if f"{name} ".startswith(f"{method} ")]
    return max(ours, key=len, default=name.split(" ")[0])


def reward_kl_frontier(
    table: pd.DataFrame, ax: Any, *, reference: str, lines: Mapping[str, Frontier], metric: str = "reward", ideal: Any = None,
    health: pd.DataFrame | None = None, behind: pd.DataFrame | None = None, max_kl: float = 25.0,
) -> list[str]:  # fmt: skip
    """Fig. 2 (left) of Rafailov et al. 2023: gold reward against KL(π‖π_ref), one point per evaluated policy.

    Args:
        table: One row per policy (`suite.analysis.records.wide`): `method`, `kl`, the metric, their `_low` and `_high`,
            `privileged`, `kl_is_bound`.
        ax: Where to draw.
        reference: Name of the reference in `method`; drawn as a star with a horizontal line.
        lines: Method → its frontier (`suite.analysis.equal_kl.frontiers`), drawn as the mean over training seeds, and dashed
            where not every seed has policies on both sides.
        metric: "reward", or "log_odds", the same where a probability saturates.
        ideal: The limit that no policy can pass (`suite.maths.ideal_frontier.IdealFrontier`).
        health: Per policy, `alarms` (`suite.analysis.gather.health_table`); points with one are crossed out.
        behind: Lines of a larger study (`suite.analysis.equal_kl.lines_of`), broad and pale.
        max_kl: The KL axis ends here at the latest.

    Returns:
        What the caption must say: points beyond the axis, how privileged methods are drawn, the ideal, alarms.
    """
    notes: list[str] = []
    start = table[table["method"] == reference]
    rest = table[table["method"] != reference]
    styles = styles_of(list(dict.fromkeys(rest["method"])))
    rest = rest[rest[metric].notna()] if metric in rest else rest.iloc[:0]
    limit = min(max_kl, 1.08 * max(rest["kl"].max() if len(rest) else 1.0, 1.0))
    several = rest["seed"].nunique() > 1
    for (method, of_metric), line in behind.groupby(["method", "metric"]) if behind is not None else ():
        if of_metric == metric and method in styles and (shown := line[line["kl"] <= limit]).size:
            ax.plot(shown["kl"], shown["value"], "-", color=styles[method][0], lw=6, alpha=0.2, zorder=1, solid_capstyle="butt")
    for method, (colour, marker) in styles.items():
        rows = rest[rest["method"] == method].sort_values("kl")
        privileged = rows["privileged"].any()
        shown = rows[rows["kl"] <= limit]
        look = _points(method, colour, marker, privileged=privileged)
        if several:  # what the seeds and prompts leave open is the band of the line
            plain = {name: look[name] for name in ("color", "mfc", "label")}
            ax.plot(shown["kl"], shown[metric], marker, ms=3, alpha=0.5, zorder=3, **plain)
        else:
            ax.errorbar(
                shown["kl"], shown[metric], _errors(shown, metric), _errors(shown, "kl"), ms=6, alpha=0.9, zorder=3, **look
            )
        if method in lines:
            _draw_line(lines[method], ax, limit, color=colour, lw=0.9 if privileged else 1.4, alpha=0.8, zorder=2)
        if beyond := len(rows) - len(shown):
            largest = f"KL up to {rows['kl'].max():.0f} nats"
            notes.append(f"{method}: {beyond} of {len(rows)} points lie beyond the axis ({largest}).")
        if privileged:
            notes.append(f"{method} (hollow) selects by the gold reward itself.")
    if bounds := [str(method) for method, rows in rest.groupby("method", sort=False) if rows["kl_is_bound"].all()]:
        notes.append(f"{' and '.join(bounds)}: the KL is an upper bound.")
    if ideal is not None:
        notes.append(_draw_ideal(ideal, ax, limit))
    if health is not None:
        sick = set(map(tuple, health[health["alarms"] != ""][["method", "setting", "seed", "step"]].itertuples(index=False)))
        marked = rest[rest[["method", "setting", "seed", "step"]].apply(tuple, axis=1).isin(sick)] if len(rest) else rest
        if len(marked):
            ax.plot(marked["kl"], marked[metric], "x", color="black", ms=9, mew=1.2, zorder=5)
            notes.append(f"Crossed out: {len(marked)} policies whose completions degenerate (health.csv).")
    if len(start) and metric in start:
        row = start.iloc[0]
        ax.axhline(row[metric], color="0.6", lw=0.8, ls=":", zorder=1)
        ax.plot(0, row[metric], "*", color="black", ms=12, label=reference, zorder=4)
    ax.set_xlim(-0.02 * limit, limit)
    ax.set_xlabel("KL(π ‖ π_ref), nats per completion")
    ax.set_ylabel("gold reward")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7, loc="lower right")
    return notes


def _draw_line(frontier: Frontier, ax: Any, limit: float, **look: Any) -> None:
    """The mean of the seeds' frontiers, of three or more with 95 % over seeds and prompts; dashed where not every seed has
    policies on both sides.
    """
    first, last = frontier.span
    end = min(limit, max(kl.mean(axis=1).max() for kl in frontier.kl))
    for low, high, style in ((0.0, min(first, end), "--"), (first, min(last, end), "-"), (max(first, last), end, "--")):
        if low < high:
            at = np.linspace(low, high, 200)
            ax.plot(at, frontier.at(at), style, **look)
            if style == "-" and len(frontier.seeds) >= FEWEST_SEEDS:
                _, lower, upper = band(frontier, at)
                ax.fill_between(at, lower, upper, color=look["color"], alpha=0.12, lw=0)


def _draw_ideal(ideal: Any, ax: Any, limit: float) -> str:
    ax.plot(ideal.kl, ideal.reward, "-", color="black", lw=1.1, label="ideal, π* of the gold reward", zorder=2)
    ax.fill_between(ideal.kl, ideal.low, ideal.high, color="black", alpha=0.12, lw=0)
    beyond = "it is not known"
    if math.isfinite(ideal.maximum):
        beyond = "it is known only to lie in the grey band"
        if limit > ideal.limit:
            ax.fill_between([ideal.limit, limit], ideal.reward[-1], ideal.maximum, color="black", alpha=0.06, lw=0)
    return (
        "Black: no policy can pass it (importance weights on reference samples, 95 % over prompts); beyond "
        f"{ideal.limit:.1f} nats {beyond}."
    )


DIAGNOSTICS: dict[str, str] = said_in("styles")["diagnostics"]
"""Metric → title of its panel."""


def training_diagnostics(training: pd.DataFrame, axes: Any) -> None:
    """One panel per diagnostic, one line per run: what `docs/training_diagnostics.md` explains. `training` is
    `suite.analysis.costs.training_metrics` of one seed; there are as many Axes as `DIAGNOSTICS`.
    """
    runs = list(training.groupby(["method", "setting"], sort=False))
    styles = styles_of(list(dict.fromkeys(method for (method, _), _ in runs)))
    seen: dict[str, int] = {}
    for (method, setting), rows in runs:
        seen[method] = seen.get(method, -1) + 1
        look = {"ls": LINES[seen[method] % 4], "color": styles[method][0]}
        axes[0].plot([], [], label=f"{method} {setting}".strip(), **look)  # whether the method logs a loss or not
        for ax, metric in zip(axes, DIAGNOSTICS, strict=True):
            if metric in rows and not rows[metric].isna().all():
                smooth = rows[metric].rolling(max(1, len(rows) // 10), min_periods=1).mean()
                ax.plot(rows["step"] / rows["step"].max(), smooth, lw=1.1, **look)
    for ax, title in zip(axes, DIAGNOSTICS.values(), strict=True):
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.25)
        ax.set_xlabel("share of the run", fontsize=8)
    axes[0].set_yscale("symlog", linthresh=1.0)  # losses of different methods: from a fraction of a nat to minus hundreds


LINES = ("-", "--", "-.", ":")


def over_training(test: pd.DataFrame, axes: Any, *, max_kl: float = 25.0) -> None:
    """Reward and KL of the policies that runs kept, against the share of the run: one line per method and setting, the mean of
    its training seeds with their range.

    Args:
        test: One row per policy and training seed (`suite.analysis.records.wide`): `method`, `setting`, `seed`, `step`,
            `reward`, `kl` [nats].
        axes: Two Axes, of the reward and of the KL.
        max_kl: The KL axis ends here at the latest.
    """
    trained = test[test.groupby(["method", "setting"])["step"].transform("max") > 0]
    styles = styles_of(list(dict.fromkeys(trained["method"])))
    seen: dict[str, int] = {}
    for (method, setting), rows in trained.groupby(["method", "setting"], sort=False):
        seen[method] = seen.get(method, -1) + 1
        look = {"ls": LINES[seen[method] % 4], "color": styles[method][0]}
        for ax, metric in zip(axes, ("reward", "kl"), strict=True):
            of_seed = rows.groupby("seed")["step"]  # whose runs may differ by a step
            kept = rows.assign(share=rows["step"] / of_seed.transform("max")).groupby(of_seed.rank())
            share, values = kept["share"].mean(), kept[metric]
            ax.fill_between(share, values.min(), values.max(), color=look["color"], alpha=0.12, lw=0)
            ax.plot(share, values.mean(), marker=styles[method][1], ms=3, lw=1.1, label=f"{method} {setting}".strip(), **look)
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xlabel("share of the run")
        ax.grid(alpha=0.25)
    axes[1].set_ylim(0, min(max_kl, 1.05 * trained["kl"].max()))
    axes[0].set_ylabel("gold reward")
    axes[1].set_ylabel("KL(π ‖ π_ref), nats per completion")


def reward_within_budget(
    validation: pd.DataFrame, test: pd.DataFrame, ax: Any, *, of: str, reference: str, max_kl: float = 25.0
) -> None:
    """The test reward of each method's best policy within a budget, as the budget grows.

    The best is the one with the most validation reward, so a step may go down. Where a method has no validation points
    (Best-of-N) it is chosen on test prompts.

    Args:
        validation: One row per policy, mean over training seeds (`suite.analysis.records.over_seeds`): `method`, `reward`,
            `of`.
        test: The same on test prompts, with `reward_low` and `reward_high`, 95 % over prompts of the mean over seeds.
        ax: Where to draw.
        of: "kl" [nats] or "compute" [forward tokens].
        reference: Name of the reference; a horizontal line.
        max_kl: The KL axis ends here at the latest.
    """
    methods = [m for m in dict.fromkeys(test["method"]) if m != reference]
    unit = 1e6 if of == "compute" else 1.0
    limit = 1.08 * max(test[of].max() / unit, 1e-3)
    if of == "kl":
        limit = min(max_kl, limit)
    for method, (colour, marker) in styles_of(methods).items():
        shown = test[test["method"] == method].set_index(["setting", "step"])
        judged = validation[validation["method"] == method].set_index(["setting", "step"])
        judged = judged if len(judged) else shown
        if of == "compute" and shown["kl_is_bound"].any():  # paid for when it is asked
            continue
        rows = shown.loc[judged.index[pareto_indices(judged[of], judged["reward"])]]
        privileged = rows["privileged"].any()
        x, y = rows[of] / unit, rows["reward"]
        line = "--" if privileged else "-"
        ax.step([*x, max(limit, x.max())], [*y, y.iloc[-1]], line, where="post", lw=1.3, alpha=0.75, color=colour)
        ax.errorbar(x, y, _errors(rows, "reward"), ms=5, **_points(method, colour, marker, privileged=privileged))
    start = test[test["method"] == reference]
    if len(start):
        ax.axhline(start.iloc[0]["reward"], color="0.6", lw=0.8, ls=":", label=reference)
    ax.set_ylabel("gold reward")
    ax.grid(alpha=0.25)
    names = {"compute": "compute at most, million forward tokens (a trained one counts 3)",
             "kl": "KL(π ‖ π_ref) at most, nats per completion"}  # fmt: skip
    ax.set_xlabel(names[of])
    ax.set_xlim(-0.02 * limit, limit)


def _points(method: str, colour: str, marker: str, *, privileged: bool) -> dict[str, Any]:
    """How the points of a method look: hollow where it selects by the gold reward."""
    name, face = (f"{method} (privileged)", "none") if privileged else (method, colour)
    return {"fmt": marker, "color": colour, "mfc": face, "mec": colour, "elinewidth": 0.9, "capsize": 2, "label": name}


def _errors(rows: pd.DataFrame, metric: str) -> list[pd.Series]:
    return [(rows[metric] - rows[f"{metric}_low"]).clip(lower=0), (rows[f"{metric}_high"] - rows[metric]).clip(lower=0)]
