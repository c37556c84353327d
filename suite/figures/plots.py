"""One function per paper figure: records → Axes. They write no files."""

from __future__ import annotations

from typing import Any

import pandas as pd

# Okabe & Ito's palette, told apart by colour-blind readers; markers say the same again.
STYLES = {
    "DPO": ("#0072B2", "o"),
    "Unlikelihood": ("#D55E00", "s"),
    "Preferred-FT": ("#009E73", "D"),
    "Best-of-N": ("#CC79A7", "^"),
    "PPO": ("#E69F00", "v"),
    "PPO-GT": ("#56B4E9", "P"),
    "PPO-GT (TRL)": ("#666666", "x"),
    "cDPO": ("#332288", "<"),
    "rDPO": ("#117733", ">"),
    "IPO (sum)": ("#882255", "d"),
    "IPO (mean)": ("#DD7788", "p"),
    "Hinge": ("#999933", "X"),
    "PL-DPO": ("#44AA99", "h"),
    "Unlikelihood (Welleck)": ("#AA6633", "8"),
}
OTHERS = [("#F0E442", "*"), ("#000000", "H"), ("#999999", "P")]


def styles_of(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: fixed for ours, in order of appearance for others."""
    unknown = [m for m in methods if m not in STYLES]
    return {m: STYLES.get(m) or OTHERS[unknown.index(m) % len(OTHERS)] for m in methods}


def reward_kl_frontier(table: pd.DataFrame, ax: Any, *, reference: str, max_kl: float = 25.0) -> list[str]:
    """Fig. 2 (left) of Rafailov et al. 2023: gold reward against KL(π‖π_ref), one point per evaluated policy.

    Args:
        table: One row per policy (`suite.runs.records.wide`): `method`, `kl`, `reward`, their `_low` and `_high`, `selected`,
            `privileged`.
        ax: Where to draw.
        reference: Name of the reference in `method`; drawn as a star with a horizontal line.
        max_kl: The KL axis ends here at the latest.

    Returns:
        What the caption must say: points beyond the axis, and how privileged methods are drawn.
    """
    notes = []
    start = table[table["method"] == reference]
    rest = table[table["method"] != reference]
    styles = styles_of(list(dict.fromkeys(rest["method"])))
    limit = min(max_kl, 1.08 * max(rest["kl"].max() if len(rest) else 1.0, 1.0))
    for method, (colour, marker) in styles.items():
        rows = rest[rest["method"] == method].sort_values("kl")
        privileged = bool(rows["privileged"].any())
        shown = rows[rows["kl"] <= limit]
        ax.errorbar(
            shown["kl"], shown["reward"], fmt=marker, color=colour, ms=6, mfc="none" if privileged else colour,
            mec=colour, elinewidth=0.9, capsize=2, alpha=0.9, zorder=3,
            xerr=_errors(shown, "kl"), yerr=_errors(shown, "reward"), label=f"{method} (privileged)" if privileged else method,
        )  # fmt: skip
        frontier = rows[rows["selected"]].groupby(["setting", "step"])[["kl", "reward"]].mean()  # over training seeds
        hull = pd.concat([start[["kl", "reward"]], frontier]).sort_values("kl")
        ax.plot(hull["kl"], hull["reward"], "--" if privileged else "-", color=colour, lw=1.3, alpha=0.75, zorder=2)
        if beyond := len(rows) - len(shown):
            notes.append(
                f"{method}: {beyond} of {len(rows)} points lie beyond the axis (KL up to {rows['kl'].max():.0f} nats)."
            )
        if privileged:
            notes.append(f"{method} (hollow) selects by the gold reward itself; its KL is an upper bound.")
    if len(start):
        row = start.iloc[0]
        ax.axhline(row["reward"], color="0.6", lw=0.8, ls=":", zorder=1)
        ax.plot(0, row["reward"], "*", color="black", ms=12, label=reference, zorder=4)
    ax.set_xlim(-0.02 * limit, limit)
    ax.set_xlabel("KL(π ‖ π_ref), nats per completion")
    ax.set_ylabel("gold reward, P(positive)")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, loc="best")
    return notes


def _errors(rows: pd.DataFrame, metric: str) -> list[pd.Series]:
    return [(rows[metric] - rows[f"{metric}_low"]).clip(lower=0), (rows[f"{metric}_high"] - rows[metric]).clip(lower=0)]
