"""Where the numbers of a page come from: command, machine, data, and every run with its settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from suite.analysis.records import Results
from suite.common.errors import shown
from suite.report.html.numbers import short
from suite.report.page import plain


def facts_of(results: Results) -> dict[str, Any]:
    """Where the numbers come from."""
    about, records = results.about, results.records
    fields = ("profile", "task", "model", "labels", "test_prompts", "max_new_tokens", "machine", "workers", "device", "date",
              "sampler_dtype")  # fmt: skip
    commits = sorted(set(records["git_sha"].dropna().astype(str)))
    return {
        "command": shown(about.get("command", "")), **{name: _safe(about.get(name)) for name in fields},
        "seeds": about.get("seeds", []), "learned_from": about.get("data", {}).get("learned from", {}).get("used"),
        "commits": [shown(commit) for commit in commits], "runs": about.get("trained_runs"),
        "worker_minutes": short(about.get("worker_minutes")),
    }  # fmt: skip


def _safe(value: Any) -> Any:
    return shown(value) if isinstance(value, str) else value


def unmarked(line: str) -> str:
    """A line of Markdown as plain text."""
    return shown(line).replace("**", "").replace("`", "")


def counts_of(data: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """Part of the data, what became of rows, how many."""
    return [[plain(part), plain(str(what)), short(n)] for part, of_part in data.items() for what, n in of_part.items()]


def runs_of(runs: Mapping[str, Any], records: pd.DataFrame) -> list[dict[str, Any]]:
    """The runs by stage: `shared`, the settings that all of them have, and of each run key, title, its own ones and, of those
    that trained a policy, seconds.
    """
    took = {}
    if "run_seconds" in records:
        rows = records.dropna(subset=["run_seconds"]).drop_duplicates("run_key")
        took = {
            runs[key]["inputs"].get("policy"): short(seconds, 4)
            for key, seconds in zip(rows["run_key"], rows["run_seconds"], strict=True) if key in runs
        }  # fmt: skip
    stages: dict[str, list[tuple[str, Any]]] = {}
    for key, run in runs.items():
        stages.setdefault(f"{run['stage']}, code {run['code']}", []).append((key, run))
    found = []
    for stage, members in stages.items():
        flat = [dict(_flat(run["config"])) for _, run in members]
        names = list(dict.fromkeys(name for config in flat for name in config))
        same = {name for name in names if len({config.get(name, "–") for config in flat}) == 1}
        if len(members) == 1:
            same = set()
        own = [[[name, config[name]] for name in config if name not in same] for config in flat]
        found.append({
            "stage": shown(stage), "shared": [[name, flat[0][name]] for name in names if name in same],
            "runs": [[shown(key), shown(run["title"]), settings, took.get(key)]
                     for (key, run), settings in zip(members, own, strict=True)],
        })  # fmt: skip
    return found


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield shown(f"{path}{name}", 80), shown(str(value), 200)


def readable(text: str) -> str:
    """A stranger's text with line breaks, in which nothing is hidden."""
    return shown(text, keep="\n\t")
