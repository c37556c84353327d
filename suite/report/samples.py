"""What the policies of a study say to the same prompts, as a table, and of it `samples.md`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.gather import place_of
from suite.analysis.records import PLACED, POINT, Results, sick, write_text
from suite.report.page import inert
from suite.study.plan import PlannedPoint
from suite.study.run import Finished, samples_of

SAMPLES = "samples.md"
DEGENERATE = 3
"""Prompts of each policy with an alarm that is shown."""


def samples_table(finished: Finished, results: Results, *, prompts: int) -> pd.DataFrame | None:
    """One completion each, by policies of the study, of the first test prompts.

    Args:
        finished, results: The study, and its results so far.
        prompts: Test prompts that the reference and every last policy of the first seed answer, and how many policies with an
            alarm are shown. With `finished.options.page_samples` of them and more, so do all policies on hulls.

    Returns:
        None without any, else one row per policy and prompt: `POINT`, `PLACE`, `name`, `kind` (last, hull, degenerate),
        `prompt_id`, `shown` (the prompt), `answer` (of the data), `text`, `tokens`, `ended` (by itself), and `reward` and `kl`
        [nats] where they are known.
    """
    runs, many = finished.options.runs, finished.options.page_samples
    first_seed = min((contender.seed for contender in finished.plan.trained), default=0)
    chosen = set(_policies(results.records[results.records["selected"]])) if "selected" in results.records else set()
    ill = sick(results.health)
    ill = ill.sort_values("repetition", ascending=False).head(prompts) if len(ill) else ill
    degenerate = dict.fromkeys(ill[PLACED].itertuples(index=False, name=None), pd.DataFrame())
    rows = []
    for planned in finished.plan.points:
        if planned.samples is None:
            continue
        place, found = place_of(runs, planned), _first(runs, planned)
        if _is_last(planned, first_seed):
            rows.append(_rows(found, place, _name(planned), "last", max(prompts, many)))
        elif many and (planned.point.panel != "frontier" or tuple(place[name] for name in POINT) in chosen):
            rows.append(_rows(found, place, _name(planned), "hull", many))
        if (key := tuple(place.values())) in degenerate:
            degenerate[key] = _rows(found, place, planned.name, "degenerate", DEGENERATE)
    table = pd.concat([*rows, *degenerate.values()], ignore_index=True) if rows else pd.DataFrame()
    return table if len(table) else None


def _policies(table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    return table[POINT].itertuples(index=False, name=None)


def _rows(found: pd.DataFrame, place: dict[str, Any], name: str, kind: str, prompts: int) -> pd.DataFrame:
    columns = ["prompt_id", "shown", "answer", "text", "tokens", "ended", *(c for c in ("reward", "kl") if c in found)]
    return found.head(prompts)[columns].assign(**place, name=name, kind=kind)


def write_samples(out: Path, results: Results) -> None:
    """`samples.md`, from the table of samples. Texts of data sets may not be yours to publish."""
    table = results.samples
    assert table is not None
    lines = ["# Samples", "", "The first test prompts, one completion each by the reference and every last policy."]
    last = table[table["kind"] == "last"]
    last = last[(last["step"] == 0) | (last["seed"] == last.loc[last["step"] > 0, "seed"].min())]  # of one training seed
    for prompt, rows in last.groupby("prompt_id", sort=False):
        start = rows.iloc[0]
        lines += ["", f"## {inert(str(prompt))}", "", quoted(start["shown"])]
        lines += ["", f"*reference answer*:\n\n{quoted(start['answer'])}"] if start["answer"] else []
        for own in rows.to_dict("records"):
            known = pd.notna(own.get("reward"))
            numbers = f" (reward {own['reward']:.3f}, KL {own['kl']:.1f} nats)" if known else ""
            lines.append(f"\n*{inert(own['name'])}*{numbers}:\n\n{quoted(own['text'])}")
    lines += ["\n## Degenerate policies\n", "The paper's Table 3 shows unlikelihood's; here those with the most repetition."]
    alarms = {tuple(row[name] for name in PLACED): row["alarms"] for row in results.health.to_dict("records")}
    for key, rows in table[table["kind"] == "degenerate"].groupby(PLACED, sort=False):
        own = rows.iloc[0]
        lines += ["", f"### {inert(own['name'])}, seed {own['seed']}, step {own['step']}: {alarms.get(key, '')}"]
        lines += [f"\n{quoted(row['shown'])}\n>\n{quoted('⟶ ' + row['text'])}" for row in rows.to_dict("records")]
    lines += [] if len(sick(results.health)) else ["", "None: no policy has an alarm."]
    write_text(out / SAMPLES, "\n".join([*lines, ""]))


def _name(planned: PlannedPoint) -> str:
    return planned.contender.label if planned.point.panel == "frontier" else planned.name


def _is_last(planned: PlannedPoint, seed: int) -> bool:
    contender, point = planned.contender, planned.point
    of_seed = contender.seed == seed or not contender.snapshots
    return of_seed and point.panel != "training" and point.snapshot in (None, contender.snapshots - 1)


def _first(runs: Path, planned: PlannedPoint) -> pd.DataFrame:
    """One test completion per prompt, the first or what Best-of-N keeps, with its `reward` and `kl` where they are known."""
    frame = samples_of(runs, planned)
    frame = frame[(frame["split"] == "test") & ((frame["sample"] == 0) | (planned.scores is not None))]
    frame = frame.assign(ended=~frame["truncated"].astype(bool))
    if planned.measured is None:
        return frame
    rows: Any = pd.read_parquet(planned.measured.directory(runs) / "measurements.parquet")
    rows = rows[(rows["split"] == "test") & rows["metric"].isin(["reward", "kl"])]
    return frame.merge(rows.pivot(index=["prompt_id", "sample"], columns="metric", values="value").reset_index())


def quoted(text: str) -> str:
    """A text as a Markdown quotation that shows what it says."""
    return "\n".join(f"> {inert(line)}" for line in text.strip().splitlines() or [""])
