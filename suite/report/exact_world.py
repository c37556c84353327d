"""The page and the figure of the exact world from its tables. No torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.maths.statistics import t_interval
from suite.report.files import figure_file
from suite.report.page import interval, page, said_in, table

TABLES = ("kl_estimators", "dpo_error_by_pairs", "labels")
SLOPE_FROM = 16_000
"""Pairs from which on the slope is fitted."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def summary(origin: str, estimators: pd.DataFrame, errors: pd.DataFrame, labels: pd.DataFrame) -> str:
    """The three tables as one page; `origin` says what made them."""
    bias = [f"{row.bias:+.4f} [{row.bias_low:+.4f}, {row.bias_high:+.4f}]" for row in estimators.itertuples()]
    names = {"kl": "KL", "sd": "sd of the mean", "negative": "share of samples < 0", "n": "replications"}
    shown = estimators.assign(bias=bias).drop(columns=["bias_low", "bias_high"]).rename(columns=names)
    by_pairs = [
        {"pairs": pairs, "kl_to_optimum": _mean(rows["kl_to_optimum"]),
         "never won or never lost, of 312": round(rows["one_sided"].mean(), 1)}
        for pairs, rows in errors.groupby("pairs")
    ]  # fmt: skip
    words = said_in("words")["exact_world"]
    of_estimators = words["estimators"].format(
        n=estimators["n"].iloc[0], table=table(shown, disable_numparse=False, floatfmt=".4f")
    )
    of_pairs = words["pairs"].format(n=errors["seed"].nunique(), slope=_mean(slopes(errors)), table=table(by_pairs))
    last = labels[labels["step"] == labels["step"].max()]
    of_labels = words["labels"].format(table=table(last, disable_numparse=False, floatfmt=".4g"))
    headings = ("", "KL estimators", "DPO from sampled pairs", "What hard labels do")
    return page("The exact world", zip(headings, (origin, of_estimators, of_pairs, of_labels), strict=True))


def _mean(values: Any) -> str:
    return interval(*t_interval(values)[:3], ".4f")


def draw(folder: Path, out: Path) -> list[Path]:
    """`exact_world.svg` from the folder's three tables, into `out`; returns what was written."""
    estimators, errors, labels = (pd.read_csv(folder / f"{name}.csv") for name in TABLES)
    with figure_file(out / "exact_world", (13, 4), columns=3) as (figure, axes, written):
        kl_estimators(estimators, axes[0])
        error_by_pairs(errors, axes[1])
        labels_matter(labels, axes[2])
        for ax in axes:
            ax.legend(fontsize=7)
        figure.set_layout_engine("constrained")
    return written


def slopes(errors: pd.DataFrame) -> list[float]:
    """Of log KL(π‖π*) on log pairs, from `SLOPE_FROM` pairs up, for each data set seed."""
    far = errors[errors["pairs"] >= SLOPE_FROM]
    return [float(np.polyfit(np.log(rows["pairs"]), np.log(rows["kl_to_optimum"]), 1)[0]) for _, rows in far.groupby("seed")]


def kl_estimators(found: pd.DataFrame, ax: Any) -> None:
    """Bias of each estimator's mean over one replication, with its spread, in units of the true KL; one group per policy."""
    policies = list(dict.fromkeys(found["policy"]))
    for k, (estimator, rows) in enumerate(found.groupby("estimator", sort=False)):
        at = [policies.index(p) + 0.15 * (k - (found["estimator"].nunique() - 1) / 2) for p in rows["policy"]]
        ax.errorbar(
            at, rows["bias"] / rows["kl"], yerr=rows["sd"] / rows["kl"], fmt="o", ms=4, capsize=3, color=COLOURS[k],
            label=estimator,
        )  # fmt: skip
    ax.axhline(0, color="0.6", lw=0.8, ls=":")
    ax.set_xticks(range(len(policies)), [f"KL {kl:.2f}" for kl in found.groupby("policy", sort=False)["kl"].first()])
    ax.set_ylabel("(mean of 64 - KL) / KL, ± 1 sd")
    ax.set_title("KL estimators", fontsize=10)


def error_by_pairs(found: pd.DataFrame, ax: Any) -> None:
    """KL(π‖π*) of DPO against the number of pairs, log axes, with the slope at the right end."""
    ax.loglog(found["pairs"], found["kl_to_optimum"], "o", ms=4, color=COLOURS[0], alpha=0.6, label="one data set")
    mean = found.groupby("pairs")["kl_to_optimum"].mean()
    ax.loglog(mean.index, mean, "-", color=COLOURS[0], label=f"mean; last slope {np.mean(slopes(found)):.2f}")
    ax.set(xlabel="preference pairs per prompt", ylabel="KL(π ‖ π*), nats")
    ax.set_title("DPO from sampled pairs", fontsize=10)
    ax.grid(alpha=0.25, which="both")


def labels_matter(found: pd.DataFrame, ax: Any) -> None:
    """KL(π‖π_ref) during training, by kind of label and β; π*'s KL as a dotted line."""
    for k, (beta, of_beta) in enumerate(found.groupby("beta", sort=False)):
        for labels, rows in of_beta.groupby("labels", sort=False):
            style, name = ("-", "Bradley-Terry") if labels == "bradley_terry" else ("--", "hard")
            ax.semilogx(rows["step"], rows["kl"], style, color=COLOURS[k], label=f"{name}, β = {beta:g}")
        ax.axhline(of_beta["kl_of_optimum"].iloc[0], color=COLOURS[k], lw=0.8, ls=":")
    ax.set(xlabel="optimizer steps", ylabel="KL(π ‖ π_ref), nats")
    ax.set_title("Hard labels have no finite optimum", fontsize=10)
    ax.grid(alpha=0.25)
