"""What a judge's bias does to a win rate, from the simulation's table alone."""

from pathlib import Path

import pandas as pd

from suite.report.files import figure_file
from suite.report.page import page, table

TITLES = {
    "position": "Position bias: added to the probability of the first answer",
    "length": "Length bias: log-odds per 100 characters",
}
COLUMNS = {"mean": "mean estimate", "standard_error": "± se", "width": "interval's width", "coverage": "holds the truth"}


def summary(origin: str, found: pd.DataFrame, *, prompts: int) -> str:
    """The page beside the figures; `origin` says what made the table."""
    lead = (
        f"True win rate {found['truth'].iloc[0]}; {prompts} prompts a replication, {found['n'].iloc[0]} replications a row. "
        "Nominal coverage 0.95."
    )
    shown = table(found.drop(columns=["n", "truth"]).rename(columns=COLUMNS), disable_numparse=False, floatfmt=".3f")
    figures = "\n".join(f"![{bias}]({bias}.svg)" for bias in TITLES)
    return page("Judges of known bias", [("", origin), ("", lead), ("", shown), ("", figures)])


def draw(folder: Path, out: Path) -> list[Path]:
    """`position.svg` and `length.svg`: mean estimate with its mean 95 % interval against the size of the bias."""
    found = pd.read_csv(folder / "judges.csv")
    files = []
    for bias, title in TITLES.items():
        with figure_file(out / bias, (6.4, 4.2)) as (figure, ax, written):
            shown = found[(found["bias"] == bias) & ((found["estimate"] == "win rate") | (bias == "length"))]
            for shift, (line, rows) in enumerate(shown.groupby("orders" if bias == "position" else "estimate", sort=False)):
                x = rows["size"] + (shift - 1) * 0.024 * shown["size"].max()  # beside each other
                ax.errorbar(x, rows["mean"], yerr=rows["width"] / 2, marker="o", ms=4, capsize=2, label=line)
            ax.axhline(found["truth"].iloc[0], color="black", lw=0.9, ls=":", label="truth")
            ax.set(xlabel=title, ylabel="estimated win rate")
            ax.legend(fontsize=8)
            ax.grid(alpha=0.25)
            figure.subplots_adjust(left=0.11, right=0.98, top=0.97, bottom=0.13)
        files += written
    return files
