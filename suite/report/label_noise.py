"""Figure and page of the noise experiment, from its table alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.equal_kl import SHARED
from suite.report.figures import LINES, method_in, styles_of
from suite.report.files import captioned, figure_file
from suite.report.html.write import FILE
from suite.report.page import code, page, table
from suite.report.tables import with_interval

TABLE = "label_noise.csv"
BESIDE = 0.012
"""Settings stand side by side, this share of the axis apart."""


def draw(folder: Path, out: Path) -> list[Path]:
    """`label_noise`: reward at each KL against the share of wrong labels, one panel per KL; returns what was written."""
    rows = pd.read_csv(folder / TABLE, dtype={"kl_budget": str})
    rows = rows[rows["kl_budget"] != SHARED]
    budgets = list(dict.fromkeys(rows["kl_budget"]))
    families = {name: method_in(name) for name in dict.fromkeys(rows["method"])}
    styles, shades = styles_of(list(dict.fromkeys(families.values()))), dict[str, int]()
    levels, seeds = sorted(rows["noise"].unique()), int(rows["seeds"].max())
    aside = (max(levels) - min(levels)) * BESIDE
    with figure_file(out / "label_noise", (4.2 * len(budgets), 5.4), columns=len(budgets)) as (figure, axes, written):
        for ax, budget in zip(np.atleast_1d(axes), budgets, strict=True):
            shades.clear()
            for place, (name, family) in enumerate(families.items()):
                shade = shades[family] = shades.get(family, -1) + 1
                line = rows[(rows["method"] == name) & (rows["kl_budget"] == budget)].sort_values("noise")
                line = line[(line["nearest"] <= float(budget)) & (line["reach"] >= float(budget))]
                colour, marker = styles[family]
                errors = [line["reward"] - line["low"], line["high"] - line["reward"]]
                at = line["noise"] + aside * (place - (len(families) - 1) / 2)
                ax.errorbar(at, line["reward"], errors, color=colour, marker=marker, ms=4, lw=1.2, capsize=2,
                            ls=LINES[shade % 4], label=name)  # fmt: skip
            ax.set_title(f"at {budget} nats", fontsize=9)
            ax.set(xlabel="share of wrong labels", xticks=levels, xlim=(min(levels) - 6 * aside, max(levels) + 6 * aside))
            ax.grid(alpha=0.25)
        first = np.atleast_1d(axes)[0]
        first.set_ylabel("gold reward")
        captioned(figure, "Reward at equal KL against label noise", [
            f"Bars: 95 % over test prompts and {seeds} training seed{'s' * (seeds > 1)}, side by side at each share. A setting "
            "without policies on both sides of a KL is left out.",
        ])  # fmt: skip
        figure.subplots_adjust(wspace=0.2, bottom=0.25)
        figure.legend(*first.get_legend_handles_labels(), fontsize=7, ncol=4, loc="lower left", bbox_to_anchor=(0.02, 0.05))
    return written


def noise_page(rows: pd.DataFrame, *, command: str, seeds: Sequence[int], prompts: int) -> str:
    """Every setting at every level of noise, beside DPO on the same pairs."""
    shown: list[dict[str, Any]] = [
        {
            "share of wrong labels": f"{row['noise']:g}", "KL, nats": row["kl_budget"], "setting": row["method"],
            "reward": with_interval(row.rename({"low": "reward_low", "high": "reward_high"}), "reward"),
            "minus DPO, simultaneous": with_interval(row, "difference", "+.3f"), "verdict": row["verdict"],
        }
        for _, row in rows.iterrows()
    ]  # fmt: skip
    lead = (
        f"Training seeds {', '.join(map(str, seeds))}, {prompts} test prompts; each seed draws its own prompts, completions "
        "and labels. Intervals of differences are simultaneous within a level of noise."
    )
    sections = [
        ("", code(command)),
        ("", f"[Interactive page of every level]({FILE})"),
        ("", lead),
        ("", "![reward against noise](label_noise.svg)"),
        ("", table(shown)),
    ]
    return page("Wrong labels", sections)
