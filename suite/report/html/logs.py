"""What runs logged and what a judge said, as a page carries them."""

from typing import Any

import numpy as np

from suite.analysis.records import Results
from suite.report.html.numbers import shorts
from suite.report.html.provenance import readable
from suite.report.page import plain, said_in

POINTS_OF_A_CURVE = 28
"""Of a run's metrics, each a mean over as many steps."""


def training_of(results: Results, methods: list[str]) -> dict[str, Any]:
    """Curves of the diagnostics: every run's, in parts of its steps.

    Returns:
        `by`: what they are drawn against first; `panels`: titles; and `runs`: `method`, `setting`, `seed`, `step`, and for
        every panel the means or null.
    """
    table = results.training
    panels = {metric: title for metric, title in said_in("styles")["diagnostics"].items() if metric in table}
    runs = []
    for (method, setting, seed), rows in table.groupby(["method", "setting", "seed"], sort=False):
        if method not in methods:
            continue
        parts = np.array_split(np.arange(len(rows)), min(POINTS_OF_A_CURVE, len(rows)))
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        means = rows[["step", *panels]].groupby(groups).mean()
        values = [None if means[name].isna().all() else shorts(means[name], 4) for name in panels]
        runs.append({
            "method": methods.index(str(method)), "setting": plain(str(setting)) if setting else "", "seed": int(str(seed)),
            "step": shorts(means["step"], 4), "values": values,
        })  # fmt: skip
    return {"by": "share", "panels": [plain(title) for title in panels.values()], "runs": runs}


def judgments_of(results: Results, samples: int) -> dict[str, Any]:
    """Every verdict of a judge, as columns; with what the judge said, which may quote texts, of the first `samples` prompts."""
    table = results.verdicts
    if table is None or table.empty:
        return {}
    if "reply" in table:
        shown = table["prompt_id"].isin(list(dict.fromkeys(table["prompt_id"]))[:samples])
        table = table.assign(reply=table["reply"].where(shown, ""))
    names = [name for name in ("matchup", "prompt_id", "swapped", "verdict", "winner", "reply", "failure") if name in table]
    matchups = list(dict.fromkeys(table["matchup"])) if "matchup" in table else []
    columns: dict[str, Any] = {
        name: [readable(str(value)) for value in table[name].astype(object).fillna("")] for name in names
    }
    if matchups:
        columns["matchup"] = [matchups.index(value) for value in table["matchup"]]
    judges = sorted({f"{row.judge}, {row.template}".rstrip(", ") for row in table.astype(object).fillna("").itertuples()})
    return {"judges": [plain(judge) for judge in judges], "matchups": [plain(name) for name in matchups], "columns": columns}
