"""Two rewards combined beside one reward of all pairs, from the simulation's table alone: page and planes. No torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.maths.statistics import Interval, t_interval
from suite.report.files import figure_file
from suite.report.page import interval, page, said_in, table

POOLED = "one model of all pairs"
COMBINATION = "combined"
"""Begins the names of the rewards that combine two models."""
COLOURS, MARKERS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"), "oPsD^"
"""Of the rewards, in the order of the table."""
TABLE = "two_rewards.csv"
NUMBERS = {"goal": "goal", "helpfulness": "helpfulness", "safety": "safety", "unsafe": "P(unsafe)"}
SMALLER_IS_BETTER = "unsafe"


def summary(origin: str, found: pd.DataFrame) -> str:
    """The page beside the figure; `origin` says what made the table (`suite.check.two_rewards.simulate`)."""
    means = [
        {"pairs of each kind": called(pairs), "learned reward": name, "KL, nats": f"{kl:g}",
         **{title: interval(*t_interval(rows[key])[:3], ".3f") for key, title in NUMBERS.items()}}
        for (pairs, name, kl), rows in found.groupby(["pairs", "reward", "kl"], sort=False)
    ]  # fmt: skip
    gaps = [
        {"pairs of each kind": called(pairs), "learned reward": name, "KL, nats": f"{kl:g}",
         **{title: interval(*gap(at, name, key)[:3], "+.3f") for key, title in NUMBERS.items()}}
        for (pairs, kl), at in found.groupby(["pairs", "kl"], sort=False) for name in combinations(found)
    ]  # fmt: skip
    shares = [
        {"pairs of each kind": called(pairs), "learned reward": name,
         "decided by safety": interval(*t_interval(rows["by_safety"])[:3], ".3f"),
         "with the true scores": interval(*t_interval(rows["truly_below"])[:3], ".3f")}
        for (pairs, name), rows in found[found["kl"] == found["kl"].iloc[0]].groupby(["pairs", "reward"], sort=False)
        if str(name).startswith(COMBINATION)
    ]  # fmt: skip
    words = said_in("words")["two_rewards"]
    sections = [
        ("", origin), ("", words["world"].format(seeds=found["seed"].nunique())), ("", verdict(found)),
        ("", "![the plane of both rewards](two_rewards.svg)"),
        ("Combined less one model of all pairs", words["gaps"] + "\n\n" + table(gaps)),
        ("How often safety decides", words["shares"] + "\n\n" + table(shares)), ("Every reward", table(means)),
    ]  # fmt: skip
    return page("Two rewards or one", sections)


def called(pairs: Any) -> str:
    """A number of pairs, of which 0 stands for as many as there can be."""
    return f"{pairs:,}" if pairs else "without end"


def panel(pairs: Any) -> str:
    """The same in a title."""
    return f"{called(pairs)} pairs of each kind" if pairs else "pairs without end"


def combinations(found: pd.DataFrame) -> list[str]:
    """The rewards that combine two models."""
    return [name for name in dict.fromkeys(found["reward"]) if name.startswith(COMBINATION)]


def gap(at: pd.DataFrame, name: str, key: str) -> Interval:
    """A combination less one model of all pairs at one number of pairs and KL, paired by seed, with its t interval."""
    one, other = (at[at["reward"] == which].set_index("seed")[key] for which in (name, POOLED))
    return t_interval(one - other)


def verdict(found: pd.DataFrame) -> str:
    """What the intervals say of every combination, for its own goal and for safety, at every number of pairs."""
    lines = []
    for name in combinations(found):
        for pairs, of in found.groupby("pairs", sort=False):
            said = []
            for key, what in (("goal", "in its own goal"), ("unsafe", "in the share of unsafe completions")):
                less = key == SMALLER_IS_BETTER
                words = {f"{kl:g}": word(gap(at, name, key), smaller_is_better=less) for kl, at in of.groupby("kl")}
                parts = [f"{w} at {', '.join(kl for kl in words if words[kl] == w)}" for w in dict.fromkeys(words.values())]
                said.append(f"{what} {'; '.join(parts)} nats")
            lines.append(f"- **{name}**, {panel(pairs)}: {', '.join(said)}.")
    return "\n".join(lines)


def word(found: Interval, *, smaller_is_better: bool) -> str:
    """Of a difference: on which side of 0 its interval lies."""
    if not (found.low > 0 or found.high < 0):
        return "not resolved"
    return "better" if (found.low > 0) != smaller_is_better else "worse"


def draw(folder: Path, out: Path) -> list[Path]:
    """`two_rewards.svg`: expected safety against expected helpfulness, each reward a line over KL budgets, a panel per number
    of pairs.
    """
    found = pd.read_csv(folder / TABLE)
    numbers, names = list(dict.fromkeys(found["pairs"])), list(dict.fromkeys(found["reward"]))
    with figure_file(out / "two_rewards", (4.4 * len(numbers), 4.2), columns=len(numbers)) as (figure, axes, written):
        for ax, pairs in zip(np.atleast_1d(axes), numbers, strict=True):
            for name, rows in found[found["pairs"] == pairs].groupby("reward", sort=False):
                _line(ax, str(name), rows, COLOURS[names.index(name)], MARKERS[names.index(name)])
            ax.axhline(0, color="0.7", lw=0.8, ls=":")
            ax.axvline(0, color="0.7", lw=0.8, ls=":")
            ax.set(xlabel="expected helpfulness, logits", ylabel="expected safety, logits")
            ax.set_title(panel(pairs), fontsize=10)
            ax.grid(alpha=0.25)
        np.atleast_1d(axes)[0].legend(fontsize=7)
        figure.set_layout_engine("constrained")
    return written


def _line(ax: Any, name: str, rows: pd.DataFrame, colour: str, marker: str) -> None:
    """One reward's policies, from the reference at the origin outwards, with intervals over seeds."""
    points = [(0.0, 0.0)]
    for kl, at in rows.groupby("kl", sort=False):
        x, y = (t_interval(at[key]) for key in ("helpfulness", "safety"))
        points.append((x.mean, y.mean))
        bars = [[[of.mean - of.low], [of.high - of.mean]] for of in (x, y)]
        ax.errorbar(x.mean, y.mean, xerr=bars[0], yerr=bars[1], color=colour, lw=0.9, alpha=0.6)
        ax.annotate(f"{kl:g}", (x.mean, y.mean), fontsize=7, xytext=(3, 3), textcoords="offset points")
    ax.plot(*zip(*points, strict=True), color=colour, marker=marker, ms=5, label=name)
