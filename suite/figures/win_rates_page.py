"""The page of a win-rate experiment: tables with intervals, paired tests, counts. From its tables alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.evaluation.generation_health import alarms
from suite.figures.win_rates import PANELS
from suite.maths.statistics import holm, paired_difference

POLICY = ["method", "setting"]
AGAINST = "DPO"
REFERENCE = "(reference)"
"""Setting of π_ref in the tables."""
HEALTH = ["tokens", "eos_rate", "distinct_2", "repetition", "identical", "reference_perplexity"]


def page(table: pd.DataFrame, numbers: pd.DataFrame, about: Mapping[str, Any], *, command: str, day: date, paper: str) -> str:
    """Markdown of everything that was measured.

    Args:
        table: One row per point, see `suite.runs.judged.judge_answers`.
        numbers: One row per point and prompt.
        about: Title and caption.
        command: That made it.
        day: When.
        paper: The paper's numbers, Markdown; empty if there are none.
    """
    parts = [f"# {about['title']}", f"`{command}`  \n{day}", "\n".join(about["caption"]), "![win rates](win_rates.png)"]
    for panel in [name for name in PANELS if (table["panel"] == name).any()]:
        rows = table[table["panel"] == panel]
        shown = rates(rows, panel, about.get("paper_rates", {}) if panel == "temperature" else {})
        parts += [f"## Win rate {PANELS[panel][1]}", shown.to_markdown(index=False)]
        gaps = differences(numbers[numbers["panel"] == panel])
        if len(gaps):
            parts += [
                f"### Beside {AGAINST}\n\nDifference of the win rates on the same prompts; p by paired t-test, Holm over "
                f"{len(gaps)} comparisons.",
                gaps.to_markdown(index=False),
            ]
    parts += [
        "## Judgments\n\nBrackets: 95 %, clustered by prompt. Tied: 0.5 is inside.", judgments(table).to_markdown(index=False),
        "## Health of the answers", health(table).to_markdown(index=False), "## Data\n\nRows by what became of them.",
        data(about["data"]).to_markdown(index=False), "## Settings", settings(about["settings"]).to_markdown(index=False),
    ]  # fmt: skip
    if about.get("deviations"):
        table_of = pd.DataFrame(about["deviations"], columns=["item", "paper", "here"])
        parts += ["## Beside the paper's protocol", table_of.to_markdown(index=False)]
    if paper:
        parts.append(f"## The paper's numbers\n\n{paper.strip()}")
    return "\n\n".join(parts) + "\n"


def rates(rows: pd.DataFrame, panel: str, paper: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Policies down, x across; then what the paper has: method → x → win rate."""
    x_name = {"temperature": "T", "training": "share", "best_of_n": "N"}[panel]
    cells: dict[str, dict[str, str]] = {}
    for row in rows.itertuples():
        name = row.method if panel == "best_of_n" else f"{row.method} {row.setting}".strip()
        name += f", T = {row.temperature:g}" if panel == "training" else ""
        cells.setdefault(name, {})[f"{x_name} = {row.x:g}"] = _share(row, "win_rate")
    ours = {name for of_policy in cells.values() for name in of_policy}
    for method, of_method in paper.items():
        if known := {f"{x_name} = {x}": value for x, value in of_method.items() if f"{x_name} = {x}" in ours}:
            cells[f"*{method}, the paper*"] = known
    found = pd.DataFrame.from_dict(cells, orient="index").rename_axis("policy").fillna("–")
    return found[sorted(found.columns, key=lambda name: float(name.rpartition(" ")[2]))].reset_index()


def gaps(numbers: pd.DataFrame, against: str = AGAINST) -> pd.DataFrame:
    """Every policy less that of `against` where both answered the same prompts at the same x; empty without it.

    Returns:
        `policy`, `x`, `temperature`, `difference`, `low`, `high`, `n`, `p` (Holm over the rows).
    """
    rows, p_values = [], []
    for (x, temperature), part in numbers.groupby(["x", "temperature"], sort=True):
        by_policy = {name: rows.set_index("prompt_id")["score"] for name, rows in part.groupby(POLICY, sort=False)}
        base = [values for (method, _), values in by_policy.items() if method == against][:1]
        for (method, setting), values in by_policy.items() if base else ():
            common = values.index.intersection(base[0].index)
            if method == against or len(common) < 3:
                continue
            ours, theirs = values[common], base[0][common]
            gap = paired_difference(ours, theirs)
            p_values.append(p_value(ours - theirs))
            rows.append({"policy": f"{method} {setting}".strip(), "x": x, "temperature": temperature,
                         "difference": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n})  # fmt: skip
    return pd.DataFrame(rows).assign(p=holm(p_values)) if rows else pd.DataFrame(rows)


def differences(numbers: pd.DataFrame) -> pd.DataFrame:
    """`gaps`, for reading."""
    rows = []
    for row in gaps(numbers).itertuples():
        shown = f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        rows.append({"policy": row.policy, "x": f"{row.x:g}", "T": f"{row.temperature:g}",
                     f"win rate minus {AGAINST}'s": shown, "n": row.n, "p, corrected": f"{row.p:.3f}",
                     "": "statistically tied" if row.p > 0.05 else ""})  # fmt: skip
    table = pd.DataFrame(rows)
    return table.drop(columns="x") if len(table) and (table["x"] == table["T"]).all() else table


def verdict(table: pd.DataFrame, numbers: pd.DataFrame, against: str = AGAINST) -> str:
    """Who beats the chosen answers, and whom `against` beats: one line each, Markdown."""
    lines, several = [], table["temperature"].nunique() > 1
    for row in table.itertuples():
        word = "beats" if row.win_rate_low > 0.5 else "loses to" if row.win_rate_high < 0.5 else "ties with"
        name = f"{row.method} {row.setting}".strip() + (f", T = {row.temperature:g}" if several else "")
        lines.append(f"- **{name}** {word} the chosen answers: win rate {_share(row, 'win_rate')}, n = {row.n} prompts")
    found = gaps(numbers, against)
    lines += ["", f"Beside {against}, on the same prompts (paired t-test, Holm over {len(found)} comparisons, 5 %):", ""]
    for row in found.itertuples():
        word = "is statistically tied with" if row.p > 0.05 else "is better than" if row.difference < 0 else "is worse than"
        low, high = -row.high + 0.0, -row.low + 0.0
        at = f", T = {row.temperature:g}" if several else ""
        lines.append(
            f"- **{against} {word} {row.policy}{at}**: {-row.difference + 0.0:+.3f} [{low:+.3f}, {high:+.3f}], p = {row.p:.3f}"
        )
    return "\n".join(lines if len(found) else lines[:-3])


def p_value(differences: pd.Series) -> float:
    """Of "no difference", by the paired t-test; where all differences are equal, the chance of equal signs among equals."""
    if np.ptp(differences):
        return float(stats.ttest_1samp(differences, 0.0).pvalue)
    return 1.0 if differences.iloc[0] == 0 else min(1.0, 2.0 ** (1 - len(differences)))


def judgments(table: pd.DataFrame) -> pd.DataFrame:
    """Counts, and how much order and length decided, per point."""
    rows = []
    for row in table.itertuples():
        rows.append(
            {
                "policy": f"{row.method} {row.setting}".strip(), "panel": row.panel, "x": f"{row.x:g}",
                "T": f"{row.temperature:g}",
                "win rate": _share(row, "win_rate") + (" tied" if row.win_rate_low <= 0.5 <= row.win_rate_high else ""),
                "length-controlled": _share(row, "length_controlled"), "longer wins": _share(row, "longer_wins"),
                "same position": _share(row, "flips"), "prompts": row.n, "asked": row.n_asked, "ties": row.n_tie,
                "invalid": row.n_invalid, "failed": row.n_failed,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def health(table: pd.DataFrame) -> pd.DataFrame:
    """`suite.evaluation.generation_health` per point, with alarms beside the reference at the same temperature."""
    start = table[table["setting"] == REFERENCE].drop_duplicates("temperature").set_index("temperature")
    found = [
        "; ".join(alarms(row, start.loc[row["temperature"]])) if row["temperature"] in start.index else "no reference"
        for row in table.to_dict("records")
    ]
    named = table.assign(policy=(table["method"] + " " + table["setting"]).str.strip(), T=table["temperature"], alarms=found)
    return named[["policy", "panel", "x", "T", *HEALTH, "alarms"]].round(3)


def data(counts: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """One row per part of the data: how many rows were read and used, and why the others were not."""
    rows = []
    for part, of_part in counts.items():
        others = {reason: n for reason, n in of_part.items() if reason not in ("rows", "used", "not needed")}
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in others.items())
        rows.append({"part": part, "rows read": of_part["rows"], "used": of_part["used"], "left out": reasons})
    return pd.DataFrame(rows)


def settings(values: Mapping[str, Any]) -> pd.DataFrame:
    """What was set, one row each."""
    return pd.DataFrame([{"setting": name, "here": str(value)} for name, value in values.items()])


def _share(row: Any, name: str) -> str:
    value = getattr(row, name, float("nan"))
    if pd.isna(value):
        return "–"
    return f"{value:.2f} [{getattr(row, f'{name}_low'):.2f}, {getattr(row, f'{name}_high'):.2f}]"
