"""What a judge's bias does to a win rate, from the simulation's table alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from suite.figures.results import figure_file

TITLES = {
    "position": "Position bias: added to the probability of the first answer",
    "length": "Length bias: log-odds per 100 characters",
}


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """`position` and `length`, .png and .svg: mean estimate with its mean 95 % interval against the size of the bias."""
    table = pd.read_csv(folder / "judges.csv")
    files = []
    for bias, title in TITLES.items():
        with figure_file((out or folder) / bias, (6.4, 4.2)) as (figure, ax, written):
            shown = table[(table["bias"] == bias) & ((table["estimate"] == "win rate") | (bias == "length"))]
            for shift, (line, rows) in enumerate(shown.groupby("orders" if bias == "position" else "estimate", sort=False)):
                x = rows["size"] + (shift - 1) * 0.024 * shown["size"].max()  # beside each other
                ax.errorbar(x, rows["mean"], yerr=rows["width"] / 2, marker="o", ms=4, capsize=2, label=line)
            ax.axhline(table["truth"].iloc[0], color="black", lw=0.9, ls=":", label="truth")
            ax.set_xlabel(title)
            ax.set_ylabel("estimated win rate")
            ax.legend(fontsize=8)
            ax.grid(alpha=0.25)
            figure.subplots_adjust(left=0.11, right=0.98, top=0.97, bottom=0.13)
        files += written
    return files
