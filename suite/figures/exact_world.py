"""The figure of the exact world from its tables. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.figures.results import figure_file

SLOPE_FROM = 16_000
"""Pairs from which on the slope is fitted."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """`exact_world.png` and `.svg` from the folder's three tables, into `out` or the folder; returns what was written."""
    estimators, errors, labels = (
        pd.read_csv(folder / f"{name}.csv") for name in ("kl_estimators", "dpo_error_by_pairs", "labels")
    )
    with figure_file((out or folder) / "exact_world", (13, 4), columns=3) as (figure, axes, written):
        kl_estimators(estimators, axes[0])
        error_by_pairs(errors, axes[1], slope=float(np.mean(slopes(errors))))
        labels_matter(labels, axes[2])
        figure.set_layout_engine("constrained")
    return written


def slopes(errors: pd.DataFrame) -> list[float]:
    """Of log KL(π‖π*) on log pairs, from `SLOPE_FROM` pairs up, for each data set seed."""
    far = errors[errors["pairs"] >= SLOPE_FROM]
    return [float(np.polyfit(np.log(rows["pairs"]), np.log(rows["kl_to_optimum"]), 1)[0]) for _, rows in far.groupby("seed")]


def kl_estimators(table: pd.DataFrame, ax: Any) -> None:
    """Bias of each estimator's mean over one replication, with its spread, in units of the true KL; one group per policy.

    Args:
        table: `policy`, `kl`, `estimator`, `bias`, `sd`.
        ax: Where to draw.
    """
    policies = list(dict.fromkeys(table["policy"]))
    estimators = list(dict.fromkeys(table["estimator"]))
    for k, estimator in enumerate(estimators):
        rows = table[table["estimator"] == estimator]
        at = [policies.index(p) + 0.15 * (k - (len(estimators) - 1) / 2) for p in rows["policy"]]
        ax.errorbar(
            at, rows["bias"] / rows["kl"], yerr=rows["sd"] / rows["kl"], fmt="o", ms=4, capsize=3, color=COLOURS[k],
            label=estimator,
        )  # fmt: skip
    ax.axhline(0, color="0.6", lw=0.8, ls=":")
    ax.set_xticks(range(len(policies)), [f"KL {kl:.2f}" for kl in table.groupby("policy", sort=False)["kl"].first()])
    ax.set_ylabel("(mean of 64 - KL) / KL, ± 1 sd")
    ax.set_title("KL estimators", fontsize=10)
    ax.legend(fontsize=7)


def error_by_pairs(table: pd.DataFrame, ax: Any, *, slope: float) -> None:
    """KL(π‖π*) of DPO against the number of pairs, log axes.

    Args:
        table: `pairs`, `seed`, `kl_to_optimum`.
        ax: Where to draw.
        slope: On log axes at the right end, for the legend.
    """
    ax.loglog(table["pairs"], table["kl_to_optimum"], "o", ms=4, color=COLOURS[0], alpha=0.6, label="one data set")
    mean = table.groupby("pairs")["kl_to_optimum"].mean()
    ax.loglog(mean.index, mean, "-", color=COLOURS[0], label=f"mean; last slope {slope:.2f}")
    ax.set_xlabel("preference pairs per prompt")
    ax.set_ylabel("KL(π ‖ π*), nats")
    ax.set_title("DPO from sampled pairs", fontsize=10)
    ax.grid(alpha=0.25, which="both")
    ax.legend(fontsize=7)


def labels_matter(table: pd.DataFrame, ax: Any) -> None:
    """KL(π‖π_ref) during training, by kind of label and β; π*'s KL as a dotted line.

    Args:
        table: `labels`, `beta`, `step`, `kl`, `kl_of_optimum`.
        ax: Where to draw.
    """
    for k, (beta, of_beta) in enumerate(table.groupby("beta", sort=False)):
        for labels, rows in of_beta.groupby("labels", sort=False):
            style = "-" if labels == "bradley_terry" else "--"
            name = "Bradley-Terry" if labels == "bradley_terry" else "hard"
            ax.semilogx(rows["step"], rows["kl"], style, color=COLOURS[k], label=f"{name}, β = {beta:g}")
        ax.axhline(of_beta["kl_of_optimum"].iloc[0], color=COLOURS[k], lw=0.8, ls=":")
    ax.set_xlabel("optimizer steps")
    ax.set_ylabel("KL(π ‖ π_ref), nats")
    ax.set_title("Hard labels have no finite optimum", fontsize=10)
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7)
