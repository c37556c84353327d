"""Gold reward against N of Best-of-N, from its table alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from suite.figures.plots import styles_of
from suite.figures.results import figure_file


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """`best_of_n.png` and `.svg` of a folder with `best_of_n.csv`: one line per reward that selects."""
    table = pd.read_csv(folder / "best_of_n.csv")
    sizes = sorted(table["n"].unique())
    with figure_file((out or folder) / "best_of_n", (6.4, 4.6)) as (figure, ax, written):
        for method, (colour, marker) in styles_of(list(dict.fromkeys(table["method"]))).items():
            rows = table[table["method"] == method]
            errors = [(rows["reward"] - rows["low"]).clip(lower=0), (rows["high"] - rows["reward"]).clip(lower=0)]
            look = {"color": colour, "marker": marker, "mfc": colour if method == "Best-of-N" else "none"}
            ax.errorbar(rows["n"], rows["reward"], yerr=errors, capsize=2, elinewidth=0.8, lw=1.2, ms=5, label=method, **look)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [f"{n:g}" for n in sizes])
        ax.set_xlabel("N")
        ax.set_ylabel("gold reward, P(positive)")
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8)
        prompts, pool = table["prompts"].iloc[0], table["pool"].iloc[0]
        figure.suptitle("Best-of-N by the learned and by the gold reward", fontsize=11)
        figure.text(
            0.02, 0.01, f"n = {prompts} test prompts, {pool} reference samples each; bars: 95 % over prompts. Best-of-N-GT "
            "(hollow) selects by\nthe reward that also measures it.", fontsize=7, va="bottom",
        )  # fmt: skip
        figure.subplots_adjust(left=0.11, right=0.97, top=0.92, bottom=0.18)
    return written
