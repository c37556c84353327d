"""`samples.md`: what the policies of a study say to the same prompts, and what those say that degenerate."""

from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.gather import place_of
from suite.analysis.records import PLACE, POINT, Results, sick, write_text
from suite.report.page import inert
from suite.study.plan import PlannedPoint
from suite.study.run import Finished, samples_of

SAMPLES = "samples.md"
DEGENERATE = 3
"""Policies with alarms that are shown, and prompts of each."""


def write_samples(out: Path, finished: Finished, results: Results, *, prompts: int) -> None:
    """The first test prompts with one completion of the reference and of every last policy of the first seed.

    Texts of data sets may not be yours to publish.
    """
    runs, points = finished.options.runs, [p for p in finished.plan.points if p.samples is not None]
    lines = ["# Samples", "", "The first test prompts, one completion each by the reference and every last policy."]
    first_seed = min((contender.seed for contender in finished.plan.trained), default=0)
    tables = {_name(p): _first(runs, p) for p in points if _is_last(p, first_seed)}
    for row in next(iter(tables.values())).head(prompts).to_dict("records"):
        lines += ["", f"## {inert(row['prompt_id'])}", "", quoted(row["shown"])]
        lines += ["", f"*reference answer*:\n\n{quoted(row['answer'])}"] if row["answer"] else []
        for name, table in tables.items():
            own = table[table["prompt_id"] == row["prompt_id"]].iloc[0]
            numbers = f" (reward {own['reward']:.3f}, KL {own['kl']:.1f} nats)" if "reward" in own else ""
            lines.append(f"\n*{inert(name)}*{numbers}:\n\n{quoted(own['text'])}")
    lines += ["\n## Degenerate policies\n", "The paper's Table 3 shows unlikelihood's; here those with the most repetition."]
    ill = sick(results.health)
    known = {tuple(place_of(runs, p).values()): p for p in points}
    for row in ill.sort_values("repetition", ascending=False).to_dict("records"):
        if (planned := known.get(tuple(row[name] for name in (*POINT, *PLACE)))) is not None and prompts:
            lines += ["", f"### {inert(planned.name)}, seed {row['seed']}, step {row['step']}: {row['alarms']}"]
            samples = _first(runs, planned).head(DEGENERATE).to_dict("records")
            lines += [f"\n{quoted(sample['shown'])}\n>\n{quoted('⟶ ' + sample['text'])}" for sample in samples]
            prompts -= 1
    write_text(out / SAMPLES, "\n".join([*lines, *([] if len(ill) else ["", "None: no policy has an alarm."]), ""]))


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
    if planned.measured is None:
        return frame
    rows: Any = pd.read_parquet(planned.measured.directory(runs) / "measurements.parquet")
    rows = rows[(rows["split"] == "test") & rows["metric"].isin(["reward", "kl"])]
    return frame.merge(rows.pivot(index=["prompt_id", "sample"], columns="metric", values="value").reset_index())


def quoted(text: str) -> str:
    """A text as a Markdown quotation that shows what it says."""
    return "\n".join(f"> {inert(line)}" for line in text.strip().splitlines() or [""])
