"""Results → what the page's script draws from: plain lists, texts made safe to look at, numbers with six digits."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from suite.analysis.curves import AGAINST, metric_of
from suite.analysis.equal_kl import band, frontiers
from suite.analysis.records import PLACED, Results
from suite.analysis.verdict import FEWEST_SEEDS
from suite.common.errors import shown
from suite.report.figures import styles_of
from suite.report.html.logs import judgments_of, training_of
from suite.report.html.numbers import quantised, short, shorts
from suite.report.html.provenance import counts_of, facts_of, readable, runs_of, unmarked
from suite.report.html.verdicts import budgets_of
from suite.report.page import plain
from suite.study.plan import REFERENCE

COSTS = ("compute", "tokens_sampled", "tokens_scored", "tokens_trained", "run_seconds", "worker_peak_memory_mib")
MADE = ("run_key", "git_sha", "created_at", "privileged", "kl_is_bound", "selected")
HEALTH = (
    "tokens", "eos_rate", "distinct_1", "distinct_2", "distinct_3", "repetition", "identical", "reference_perplexity",
)  # fmt: skip
SHAPES = {"o": "circle", "s": "square", "D": "diamond", "d": "thin_diamond", "^": "up", "v": "down", "P": "plus",
          "+": "thin_plus", "X": "cross", "x": "thin_cross", "<": "left", ">": "right", "*": "star", "H": "flat_hexagon",
          "h": "hexagon", "p": "pentagon", "8": "octagon"}  # fmt: skip
"""Markers of the figures (`styles.toml`) → names of the page's shapes."""
HEADLINES = {"frontier": "Reward and KL", "plane": "Two rewards", "win_rate": "Win rates", "reward": "Rewards"}
"""Kind of a study, of one of curves its metric → heading of its figure."""
OF_A_TEXT = ("ended", "reward", "tokens")
KL_TITLE = "KL(π ‖ π_ref), nats per completion"
NO_RECORDS = ("sampler_kl", "reference_log_prob")
"""Metrics of runs, which are no property of a policy."""


def data_of(results: Results, name: str, *, samples: int = 0, verdicts: bool = True) -> dict[str, Any]:
    """Everything on one study that the page shows.

    Args:
        results: Of its folder.
        name: Of the folder.
        samples: Test prompts whose texts and completions are in it.
        verdicts: Compare; not of results that still grow.
    """
    about, kind = results.about, kind_of(results)
    results = _with_equal_places(results)
    policies = results.records.drop_duplicates(PLACED).reset_index(drop=True)
    index = pd.MultiIndex.from_frame(policies[PLACED])
    methods = methods_of(results)
    metrics = [metric for metric in dict.fromkeys(results.records["metric"]) if metric not in NO_RECORDS]
    texts = texts_of(results, index, samples)
    return {
        "name": plain(name),
        "headline": HEADLINES[main_of(results) if kind == "curves" else kind],
        "title": plain(about.get("title") or name), "kind": kind, "main": main_of(results), "reference": REFERENCE,
        "figures": figures_of(results), "rewards": rewards_of(results),
        "against": plain(about.get("against", AGAINST)),
        "reward": plain(about.get("label") or about.get("reward", "reward")), "behindName": unmarked(about.get("behind", "")),
        "note": unmarked(about.get("note", "")), "facts": facts_of(results),
        "lines": [unmarked(line) for line in about.get("lines", about.get("caption", []))],
        "methods": [{"name": plain(method), "colour": colour, "shape": SHAPES.get(marker, "circle")}
                    for method, (colour, marker) in styles_of(methods).items()],
        "metrics": metrics, "policies": _policies(policies, methods, results.health),
        "points": {split: _points(results.records, split, metrics, index) for split in ("test", "validation")},
        "hulls": _hulls(results) if kind == "frontier" else {}, "ideal": _ideal(results),
        "behind": _behind(results), "budgets": budgets_of(results) if verdicts and len(policies) else [],
        "prompts": _prompts(results, index, texts),
        "texts": texts, "training": training_of(results, methods), "judgments": judgments_of(results, samples),
        "data": counts_of(about.get("data", {})),
        "deviations": [[shown(str(cell)) for cell in row] for row in about.get("deviations", [])],
        "runs": runs_of(results.runs.get("runs", {}), results.records),
    }  # fmt: skip


def methods_of(results: Results) -> list[str]:
    """Who is in the race, also where only its training has begun; in the order of the records."""
    return list(dict.fromkeys([*results.records["method"], *results.training["method"]]))


def kind_of(results: Results) -> str:
    """`frontier`: reward against KL; `plane`: one reward against another; `curves`: against temperature, training or N."""
    panels = set(results.records["panel"])
    return "frontier" if panels <= {"frontier"} else "plane" if panels <= {"plane"} else "curves"


def main_of(results: Results) -> str:
    """The metric of most interest."""
    known = set(results.records["metric"])
    return str(results.about.get("metric") or ("win_rate" if "win_rate" in known else "reward"))


def rewards_of(results: Results) -> list[str]:
    """What is said of a policy: of a plane both its rewards, else the metric of most interest."""
    return list(dict.fromkeys([main_of(results), *(figure["y"] for figure in results.about.get("figures", []))]))


def figures_of(results: Results) -> list[dict[str, str]]:
    """What may be drawn against what: `name`, `x`, `x_title`, `y`, `y_title`; of a plane as its study says."""
    about = results.about
    label, kl = about.get("label") or about.get("reward", "reward"), {"x": "kl", "x_title": KL_TITLE}
    own = [
        {"name": label, **kl, "y": "reward", "y_title": f"gold reward, {label}"},
        {"name": "log-odds", **kl, "y": "log_odds", "y_title": "mean log-odds, nats"},
    ]  # fmt: skip
    return [{key: plain(str(value)) for key, value in figure.items()} for figure in about.get("figures", own)]


def _with_equal_places(results: Results) -> Results:
    """Places in all tables with the six digits that those have which are kept as CSV, so that they can be matched."""
    tables = {}
    for name in ("records", "measurements", "health", "samples"):
        table = getattr(results, name)
        if table is not None and len(table):
            columns = {column: table[column] for column in ("x", "temperature")}
            tables[name] = table.assign(
                **{c: v.map({own: float(short(own)) for own in v.unique()}) for c, v in columns.items()}
            )
    return replace(results, **tables)


def _policies(table: pd.DataFrame, methods: list[str], health: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns, one entry per policy and place."""
    columns: dict[str, list[Any]] = {
        "method": [methods.index(method) for method in table["method"]],
        "setting": [plain(str(setting)) if setting else "" for setting in table["setting"]],
        **{name: [int(value) for value in table[name]] for name in ("seed", "step")},
        **{name: shorts(table[name]) for name in ("x", "temperature")}, "panel": list(table["panel"]),
    }  # fmt: skip
    for name in (*COSTS, *MADE):
        if name in table and table[name].notna().any():
            columns[name] = shorts(table[name])
    if len(health):
        own = table[PLACED].merge(health, on=PLACED, how="left")
        columns["alarms"] = [shown(alarms) if isinstance(alarms, str) else "" for alarms in own["alarms"]]
        columns |= {f"health_{name}": shorts(own[name], 4) for name in HEALTH if name in own}
    return columns


def _points(records: pd.DataFrame, split: str, metrics: list[str], index: pd.MultiIndex) -> dict[str, Any]:
    """Metric → value, low, high and n of every policy on a split."""
    found: dict[str, Any] = {}
    for metric in metrics:
        rows = records[(records["split"] == split) & (records["metric"] == metric)].set_index(PLACED)
        if len(rows):
            own = rows.reindex(index)
            found[metric] = [shorts(own[name]) for name in ("value", "ci_low", "ci_high")]
            found[metric].append(int(rows["n"].iloc[0]) if rows["n"].nunique() == 1 else shorts(own["n"]))
    return found


def _hulls(results: Results) -> dict[str, Any]:
    """Split → metric → method → parts of its frontier, each `kl`, `value` and, where all seeds have policies, `low`, `high`."""
    found: dict[str, Any] = {}
    measured = results.measurements
    for split in ("test", "validation"):
        numbers = measured[measured["split"] == split].assign(split="test")
        for metric in ("reward", "log_odds"):
            lines = frontiers(results.records, numbers, metric) if len(numbers) else {}
            for method, line in lines.items():
                found.setdefault(split, {}).setdefault(metric, {})[plain(method)] = list(_parts(line))
    return found


def _parts(line: Any) -> Iterator[dict[str, Any]]:
    first, last = line.span
    end = max(kl.mean(axis=1).max() for kl in line.kl)
    for low, high, solid in ((0.0, min(first, end), False), (first, last, True), (max(first, last), end, False)):
        if low < high:
            at = np.unique(np.concatenate([np.linspace(low, high, 40), np.geomspace(max(low, 0.05), max(high, 0.06), 20)]))
            at = at[(at >= low) & (at <= high)]
            part = {"solid": solid, "kl": shorts(at, 5), "value": shorts(line.at(at), 5)}
            if solid and len(line.seeds) >= FEWEST_SEEDS:  # as in the figures
                _, lower, upper = band(line, at)
                part |= {"low": shorts(lower, 5), "high": shorts(upper, 5)}
            yield part


def _ideal(results: Results) -> dict[str, Any] | None:
    if results.ideal is None:
        return None
    return {name: shorts(results.ideal[name], 5) for name in ("kl", "reward", "low", "high")}


def _behind(results: Results) -> dict[str, Any]:
    if results.behind is None:
        return {}
    found: dict[str, Any] = {}
    for (metric, method), line in results.behind.groupby(["metric", "method"], sort=False):
        found.setdefault(metric, {})[plain(str(method))] = {"kl": shorts(line["kl"], 5), "value": shorts(line["value"], 5)}
    return found


def texts_of(results: Results, index: pd.MultiIndex, samples: int) -> dict[str, Any]:
    """`prompts`: id, text and answer of the data of the first `samples` prompts; `rows`: prompt, policy, text, whether it
    ended by itself, its own reward, its tokens.
    """
    if results.samples is None or not samples:
        return {"prompts": [], "rows": []}
    table = results.samples[results.samples["kind"] != "degenerate"]
    measured = set(results.measurements.loc[results.measurements["split"] == "test", "prompt_id"])
    order = [prompt for prompt in dict.fromkeys(table["prompt_id"]) if prompt in measured][:samples]
    table = table[table["prompt_id"].isin(order)]
    first = table.drop_duplicates("prompt_id").set_index("prompt_id").loc[order]
    prompts = [[shown(str(name)), readable(row["shown"]), readable(row["answer"] or "")] for name, row in first.iterrows()]
    places = index.get_indexer(pd.MultiIndex.from_frame(table[PLACED]))
    rows = [
        [order.index(row["prompt_id"]), int(place), readable(row["text"]), *(short(row.get(name)) for name in OF_A_TEXT)]
        for place, (_, row) in zip(places, table.iterrows(), strict=True)
        if place >= 0
    ]
    return {"prompts": prompts, "rows": rows}


def _prompts(results: Results, index: pd.MultiIndex, texts: Mapping[str, Any]) -> dict[str, Any]:
    """Test prompts, and per prompt the main metric, KL and tokens of the policies on hulls, of the reference, and of those
    whose texts are shown; of a study of curves of all. `expected` over a pool of samples are those of the reference and
    Best-of-N.
    """
    measured = results.measurements[results.measurements["split"] == "test"]
    metric = metric_of(results.measurements) if kind_of(results) != "plane" else main_of(results)
    with_texts = {row[1] for row in texts["rows"]}
    on_hull = set(range(len(index)))
    if set(results.records["panel"]) <= {"frontier"}:
        selected = results.records.loc[results.records["selected"].astype(bool), PLACED].drop_duplicates()
        on_hull = {int(place) for place in index.get_indexer(pd.MultiIndex.from_frame(selected))}
    names = list(dict.fromkeys(measured["prompt_id"]))
    known = [name for name, _, _ in texts["prompts"]]
    names.sort(key=lambda name: known.index(shown(name)) if shown(name) in known else len(known))  # prompts with texts first
    kept, tables = sorted(on_hull | with_texts), {}
    for name in dict.fromkeys([metric, *(rewards_of(results) if kind_of(results) == "plane" else ()), "kl", "tokens"]):
        rows = measured[measured["metric"] == name]
        values = rows.groupby([*PLACED, "prompt_id"], sort=False, observed=True)["value"].mean().unstack("prompt_id")
        values = values.reindex(columns=names).reindex(index[kept]) if len(values) else values
        if values.notna().any(axis=None):
            tables[name] = quantised(values.to_numpy(dtype=float))
    drawn = measured.groupby(PLACED, sort=False, observed=True)["sample"].max()
    expected = {int(place) for place in index.get_indexer(drawn.index[drawn < 0])}
    return {"names": [shown(name) for name in names], "metric": metric, "policies": [int(place) for place in kept],
            "expected": sorted(expected & set(kept)), "tables": tables}  # fmt: skip
