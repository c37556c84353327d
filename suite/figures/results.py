"""A results folder: what a run leaves there, read back, and its figures drawn from that alone. No torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from suite.figures import plots
from suite.files import write_atomically
from suite.maths.ideal_frontier import IdealFrontier
from suite.records import REFERENCE, over_seeds, wide, with_reward_intervals

CAPTION_WIDTH = 125
"""Characters of a caption line that fit on the figure."""


@dataclass(frozen=True)
class Results:
    """The tables of one results folder."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """Profile, sizes, seeds: what a caption needs."""
        return json.loads((self.folder / "about.json").read_text())

    @cached_property
    def records(self) -> pd.DataFrame:
        """See `suite.runs.collect.collect`."""
        return pd.read_csv(self.folder / "records.csv", keep_default_na=False, na_values=[""]).fillna({"setting": ""})

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """Per-prompt numbers, see `suite.runs.collect.collect`."""
        return pd.read_parquet(self.folder / "per_prompt.parquet")

    @cached_property
    def training(self) -> pd.DataFrame:
        """See `suite.runs.costs.training_metrics`."""
        return pd.read_parquet(self.folder / "training.parquet")

    @cached_property
    def health(self) -> pd.DataFrame:
        """See `suite.runs.health.health_table`."""
        table = pd.read_csv(self.folder / "health.csv", keep_default_na=False, na_values=[""])
        return table.fillna({"setting": "", "alarms": ""})

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """See `suite.comparisons.compare`."""
        return pd.read_csv(self.folder / "comparisons.csv", keep_default_na=False, na_values=[""], dtype={"kl_budget": str})

    @cached_property
    def ideal(self) -> IdealFrontier | None:
        path = self.folder / "ideal.csv"
        if not path.exists():
            return None
        table = pd.read_csv(path)
        columns = {name: table[name].to_numpy() for name in table}
        return IdealFrontier(**columns, limit=float(table["kl"].iloc[-1]), maximum=self.about.get("reward_maximum", 1.0))


def draw_all(folder: Path, out: Path | None = None) -> list[Path]:
    """Every figure of a results folder, into `out` or the folder itself; returns what was written."""
    results, out = Results(folder), out or folder
    return [*draw_frontier(results, out), *draw_budgets(results, out), *draw_training(results, out)]


def draw_frontier(results: Results, out: Path) -> list[Path]:
    """`frontier.png` and `.svg`: reward against KL, hulls, the ideal, alarms."""
    about = results.about
    with figure_file(out / "frontier", (7.2, 5.6)) as (figure, ax, written):
        notes = plots.reward_kl_frontier(
            wide(results.records, "test"), ax, reference=REFERENCE, ideal=results.ideal, health=results.health
        )
        seeds = ", ".join(map(str, about["seeds"])) or "–"
        caption = [
            f"Profile {about['profile']}: n = {about['test_prompts']} test prompts, {about['samples_per_prompt']} "
            f"completion(s) each of at most {about['max_new_tokens']} tokens; {about['labels']} labels; training seed(s) "
            f"{seeds}.",
            f"SFT and Best-of-N: {about['pool_size']} reference samples per prompt.",
            "Bars: 95 % over prompts. Lines: hulls chosen on validation prompts, drawn at test values.",
            *notes,
        ]
        lines = [line for text in caption for line in textwrap.wrap(text, width=CAPTION_WIDTH)]
        ax.set_ylabel(f"gold reward, {about.get('reward', 'P(positive)')}")
        figure.suptitle("Gold reward against KL to the reference", fontsize=11)
        figure.text(0.02, 0.01, "\n".join(lines), fontsize=7, va="bottom")
        figure.subplots_adjust(left=0.1, right=0.97, top=0.92, bottom=0.1 + 0.021 * len(lines))
    return written


def draw_budgets(results: Results, out: Path) -> list[Path]:
    """`budgets.png` and `.svg`: reward at equal KL beside reward at equal compute."""
    validation, test = (over_seeds(wide(results.records, split)) for split in ("validation", "test"))
    test = with_reward_intervals(test, results.numbers)
    with figure_file(out / "budgets", (10.5, 4.9), columns=2) as (figure, axes, written):
        for ax, of in zip(axes, ("kl", "compute"), strict=True):
            plots.reward_within_budget(validation, test, ax, of=of, reference=REFERENCE)
        axes[0].legend(fontsize=7, loc="lower right")
        axes[0].set_ylabel(f"gold reward, {results.about.get('reward', 'P(positive)')}")
        axes[1].set_ylabel("")
        figure.suptitle("Best policy within a KL budget (left) and within a compute budget (right)", fontsize=11)
        figure.text(
            0.02, 0.01, "Chosen by validation reward, drawn at test reward; bars: 95 % over prompts, training seeds averaged. "
            "Compute includes the completions of the pairs and the reward model;\nBest-of-N, which costs N completions each "
            "time it is asked, is left out on the right.", fontsize=7, va="bottom",
        )  # fmt: skip
        figure.subplots_adjust(left=0.07, right=0.98, top=0.91, bottom=0.19, wspace=0.06)
    return written


def draw_training(results: Results, out: Path) -> list[Path]:
    """`training.png` and `.svg`: what the runs of the first seed logged, one column per diagnostic."""
    training = results.training
    if training.empty:
        return []
    with figure_file(out / "training", (11, 8.6), columns=3, rows=3) as (figure, axes, written):
        plots.training_diagnostics(training[training["seed"] == training["seed"].min()], axes.ravel())
        figure.suptitle(
            f"Training diagnostics, seed {training['seed'].min()}, moving average over a tenth of the run", fontsize=11
        )
        handles, names = axes.ravel()[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=6, loc="lower center", ncol=6)
        figure.subplots_adjust(
            left=0.05, right=0.99, top=0.9, bottom=0.1 + 0.02 * (1 + len(names) // 6), wspace=0.28, hspace=0.4
        )
    return written


@contextmanager
def figure_file(
    path: Path, size: tuple[float, float], *, columns: int = 1, rows: int = 1, share: bool = True
) -> Iterator[tuple[Any, Any, list[Path]]]:
    """A figure with axes; written as PNG and SVG when the block ends. The same tables give the same files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, sharey="row" if share and columns == 2 else False)
        written: list[Path] = []
        try:
            yield figure, axes, written
            writers: dict[str, Callable[[Path], Any]] = {
                ".png": lambda target: figure.savefig(target, format="png", dpi=160),
                ".svg": lambda target: figure.savefig(target, format="svg", metadata={"Date": None}),
            }
            for suffix, write in writers.items():
                write_atomically(path.with_suffix(suffix), write)
                written.append(path.with_suffix(suffix))
        finally:
            pyplot.close(figure)
