"""Win rates against temperature, over training and by N, from their table alone. No torch."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from suite.figures.plots import LINES, styles_of
from suite.figures.results import CAPTION_WIDTH, figure_file

PANELS = {
    "temperature": ("sampling temperature", "against temperature"),
    "training": ("share of the training run", "over training"),
    "best_of_n": ("N of Best-of-N", "by N"),
}
"""Panel → what its x is, and its title."""
LIMITS = (-0.03, 1.03)


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """`win_rates.png` and `.svg` of a folder with `win_rates.csv` and `about.json`: one axis per panel."""
    table = pd.read_csv(folder / "win_rates.csv", keep_default_na=False, na_values=[""]).fillna({"setting": ""})
    about = json.loads((folder / "about.json").read_text())
    panels = [panel for panel in PANELS if (table["panel"] == panel).any()]
    styles = styles_of(list(dict.fromkeys(table["method"])))
    size = (6.4 if len(panels) == 1 else 5.2 * len(panels), 4.9)
    with figure_file((out or folder) / "win_rates", size, columns=len(panels)) as (figure, axes, written):
        for ax, panel in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
            draw_panel(table[table["panel"] == panel], ax, panel, styles)
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel(f"win rate against {about.get('against', 'the reference answer')}")
        caption = [*about["caption"], "Bars: 95 % over prompts, conditional on the trained policies."]
        lines = [line for text in caption for line in textwrap.wrap(text, width=int(CAPTION_WIDTH * size[0] / 7.2))]
        figure.suptitle(about["title"], fontsize=11)
        figure.text(0.02, 0.01, "\n".join(lines), fontsize=7, va="bottom")
        figure.subplots_adjust(left=0.8 / size[0], right=0.98, top=0.88, bottom=0.13 + 0.026 * len(lines), wspace=0.07)
    return written


def _side_by_side(rows: pd.DataFrame, ax: Any, styles: dict[str, tuple[str, str]]) -> None:
    names = []
    for k, row in enumerate(rows.itertuples()):
        colour, marker = styles[row.method]
        errors = [[max(0.0, row.win_rate - row.win_rate_low)], [max(0.0, row.win_rate_high - row.win_rate)]]
        ax.errorbar(k, row.win_rate, yerr=errors, color=colour, marker=marker, ms=7, capsize=3, elinewidth=1.2)
        names.append(f"{row.method}\n{row.setting}".strip())
    ax.set_xticks(range(len(names)), names, fontsize=7)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_title(f"at temperature {rows['x'].iloc[0]:g}", fontsize=9)
    ax.set_ylim(*LIMITS)
    ax.grid(alpha=0.25, axis="y")


def draw_panel(rows: pd.DataFrame, ax: Any, panel: str, styles: dict[str, tuple[str, str]]) -> None:
    """One line per policy (over training: per method and temperature) with its intervals, and the line of a draw.

    At a single temperature there are no lines to draw: the policies stand side by side.
    """
    ax.axhline(0.5, color="0.6", lw=0.8, ls=":")
    if panel == "temperature" and rows["x"].nunique() == 1:
        _side_by_side(rows, ax, styles)
        return
    several = rows["temperature"].nunique() > 1
    by = ["method", "setting"] if panel == "temperature" else ["method", "temperature"]
    shades: dict[str, int] = {}
    for k, (names, line) in enumerate(rows.groupby(by, sort=False)):
        method, other = names
        shade = shades[method] = shades.get(method, -1) + 1
        colour, marker = styles[method]
        label = f"{method} {other}".strip() if panel == "temperature" else f"{method}, T = {other:g}" if several else method
        ordered = line.sort_values("x")
        offset = 0.0 if panel == "best_of_n" else 0.008 * (ordered["x"].max() - ordered["x"].min()) * k
        errors = [ordered["win_rate"] - ordered["win_rate_low"], ordered["win_rate_high"] - ordered["win_rate"]]
        ax.errorbar(
            ordered["x"] + offset, ordered["win_rate"], yerr=[e.clip(lower=0) for e in errors], color=colour, marker=marker,
            ms=4.5, ls=LINES[shade % 4], lw=1.2, capsize=2, elinewidth=0.8, label=label,
        )  # fmt: skip
    name, title = PANELS[panel]
    if panel == "best_of_n":
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(rows["x"].unique()), [f"{x:g}" for x in sorted(rows["x"].unique())])
    ax.set_xlabel(name)
    ax.set_title(title, fontsize=9)
    ax.set_ylim(*LIMITS)
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7, loc="best", framealpha=0.6)
