"""Gold reward against sampling temperature, from its table alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from suite.figures.plots import LINES, styles_of
from suite.figures.results import figure_file


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """`temperature.png` and `.svg` of a folder with `temperature.csv`: reward and diversity, one line per policy."""
    table = pd.read_csv(folder / "temperature.csv", keep_default_na=False)
    styles = styles_of(list(dict.fromkeys(table["method"])))
    with figure_file((out or folder) / "temperature", (10, 4.6), columns=2, share=False) as (figure, axes, written):
        shades: dict[str, int] = {}
        for (method, setting), rows in table.groupby(["method", "setting"], sort=False):
            shade = shades[method] = shades.get(method, -1) + 1
            colour, marker = styles[method]
            look = {"color": colour, "marker": marker, "ms": 4, "ls": LINES[shade % 4], "lw": 1.2}
            errors = [rows["reward"] - rows["reward_low"], rows["reward_high"] - rows["reward"]]
            axes[0].errorbar(rows["temperature"], rows["reward"], yerr=errors, capsize=2, elinewidth=0.8, **look)
            axes[1].plot(rows["temperature"], rows["distinct_2"], label=f"{method} {setting}".strip(), **look)
        axes[0].set_ylabel("gold reward, P(positive)")
        axes[1].set_ylabel("distinct-2 over all completions")
        axes[1].legend(fontsize=7)
        for ax in axes:
            ax.set_xlabel("sampling temperature")
            ax.grid(alpha=0.25)
        figure.suptitle(
            f"Reward and diversity against temperature, n = {table['n'].iloc[0]} test prompts; bars: 95 %", fontsize=11
        )
        figure.subplots_adjust(left=0.07, right=0.98, top=0.91, bottom=0.11, wspace=0.17)
    return written
