"""Who keeps an instruction at which turn of a dialogue: rates, differences and attention, from a finished study's answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.analysis.verdict import word_of
from suite.common.errors import UserError
from suite.engine.store import RunSpec
from suite.maths.seeds_and_prompts import estimate, simultaneous
from suite.maths.statistics import ROUNDING, Interval, Limits, mean_interval
from suite.study.ghost_attention import GATT, PLAIN, SAMPLED_WITH, GhostAttentionPlan
from suite.tasks.ghost_attention import instructed

ALL = "all"
"""In place of a check: whatever the instruction."""
NUMBERS = [
    "part",
    "policy",
    "seed",
    "dialogue_id",
    "check",
    "turn",
    "kept",
    "unasked",
    "cut",
    "words",
    "attention",
    "largest_layer",
    "even",
]
"""Columns of the table of answers; no texts."""
ANSWER = ["dialogue_id", "turn"]
"""What tells a policy's answers with a seed apart."""
KEPT, GAINED = "kept", "gained"
"""What is compared: answers that keep the instruction; and that less those that keep it without having been asked to."""
LIMITS: dict[str, tuple[float, float]] = {
    KEPT: (0.0, 1.0), "unasked": (0.0, 1.0), GAINED: (-1.0, 1.0), "attention": (0.0, 1.0),
}  # fmt: skip
"""Of one answer."""


@dataclass(frozen=True)
class Consistency:
    """All numbers of a study.

    Attributes:
        answers: One row per answer, `NUMBERS`: `part` "test", or "train" for what a policy learned from (sampled by the given
            model, `policy` says for whom); `turn` from 1; `kept` and `cut` 0 or 1; `unasked`, of a test dialogue, whether the
            policy's answer at that turn of the same dialogue *without* the instruction keeps it nonetheless, 0 or 1; `words`;
            of some test dialogues the shares of `suite.evaluation.instruction_attention.Attention`, else NaN.
        counts: What was read → how many dialogues (`rows`), how many `used`, and what was left out, by reason.
    """

    answers: pd.DataFrame
    counts: Mapping[str, Mapping[str, int]]


def gather_consistency(plan: GhostAttentionPlan, runs: Path) -> Consistency:
    """The numbers that the finished runs of a plan left."""
    parts: list[pd.DataFrame] = []
    counts = {"user turns": _counts(runs, plan.user_turns)}
    instructions = [instruction.check for instruction in plan.settings.instructions]
    said = pd.read_parquet(plan.user_turns.directory(runs) / "user_turns.parquet")
    checks = {name: instructions[place] for name, place in zip(said["dialogue_id"], said["instruction"], strict=True)}
    for seed, spec in plan.dialogues.items():
        counts[spec.title] = _counts(runs, spec)
        for policy, placement in SAMPLED_WITH.items():
            rows = pd.read_parquet(spec.directory(runs) / f"dialogues_{placement}.parquet")
            parts.append(rows.assign(part="train", policy=policy, seed=seed))
    for (policy, seed), spec in plan.consistency.items():
        counts[spec.title] = _counts(runs, spec)
        of = {name: pd.read_parquet(spec.directory(runs) / f"{name}.parquet") for name in ("answers", "unasked", "attention")}
        unasked = of["unasked"][[*ANSWER, "kept"]].rename(columns={"kept": "unasked"}).astype({"unasked": int})
        rows = of["answers"].merge(unasked, on=ANSWER, validate="one_to_one")
        rows = rows.merge(of["attention"], on=ANSWER, how="left", validate="one_to_one")
        parts.append(rows.assign(part="test", policy=policy, seed=seed))
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(check=table["dialogue_id"].map(checks), words=table["answer"].str.split().str.len())
    return Consistency(table.astype({"kept": int, "cut": int, "unasked": "Int64"})[NUMBERS], counts)


def _counts(runs: Path, spec: RunSpec) -> dict[str, int]:
    return json.loads((spec.directory(runs) / "counts.json").read_text())


def in_all(answers: pd.DataFrame) -> pd.DataFrame:
    """Rows of test dialogues that every policy answered with every seed: only these are compared. `gained`, the answer's `kept`
    less its `unasked`, is added. Raises UserError if fewer than two dialogues are left.
    """
    test = answers[answers["part"] == "test"]
    whole = len(test[["policy", "seed"]].drop_duplicates())
    answered = test.drop_duplicates(["policy", "seed", "dialogue_id"])["dialogue_id"].value_counts()
    kept = answered.index[answered == whole]
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} test dialogues were answered by every policy with every seed, 2 are needed; raise "
            "--max-prompt-tokens or --test-dialogues, or take fewer --turns"
        )
    return test[test["dialogue_id"].isin(kept)].assign(gained=lambda rows: rows["kept"] - rows["unasked"])


def by_turn(rows: pd.DataFrame, column: str = KEPT) -> pd.DataFrame:
    """Means of a column: `policy`, `check` (all of them first, then each), `turn`, the column, `low`, `high` (95 % over
    dialogues, and seeds where there are several), `dialogues`, `seeds`.
    """
    found = []
    for check in (ALL, *dict.fromkeys(rows["check"])):
        some = rows if check == ALL else rows[rows["check"] == check]
        for (policy, turn), of_turn in some.groupby(["policy", "turn"], sort=False):
            values = table_of(of_turn, column)
            mean, low, high, count = interval_of(values, LIMITS[column])
            found.append({
                "policy": policy, "check": check, "turn": turn, column: mean, "low": low, "high": high, "dialogues": count,
                "seeds": len(values),
            })  # fmt: skip
    return pd.DataFrame(found)


def table_of(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column as (seeds, dialogues), of dialogues that every seed has."""
    return rows.pivot(index="seed", columns="dialogue_id", values=column).dropna(axis=1).to_numpy(dtype=float)


def interval_of(values: np.ndarray, limits: Limits) -> Interval:
    """The mean of a table (seeds, dialogues) with its 95 % interval over both (`suite.maths.seeds_and_prompts`), within the
    limits of a value; of one seed, or where all dialogues are alike, that of `suite.maths.statistics.mean_interval`.
    """
    means = values.mean(axis=0)
    if len(values) == 1 or len(means) < 2 or (found := estimate(values[None])).variance[0] <= ROUNDING:
        return mean_interval(means, limits=limits)
    half = float(stats.t.ppf(0.975, found.df[0]) * np.sqrt(found.variance[0]))
    least, most = limits or (-np.inf, np.inf)
    mean = float(found.mean[0])
    return Interval(mean, max(least, mean - half), min(most, mean + half), len(means))


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """GAtt less plain SFT at each turn, paired by seed and dialogue, in what is kept and in what is gained by asking.

    Both were trained with the same rate, which was searched for neither.

    Returns:
        `what` (`KEPT` or `GAINED`), `turn`, `difference`, `low`, `high` (simultaneous for all rows), `p` (family-wise),
        `verdict` (`suite.analysis.verdict`), `dialogues`, `seeds`.
    """
    compared = [(what, turn) for what in (KEPT, GAINED) for turn in sorted(rows["turn"].unique())]
    tables = [
        table_of(rows[(rows["policy"] == GATT) & (rows["turn"] == turn)], what)
        - table_of(rows[(rows["policy"] == PLAIN) & (rows["turn"] == turn)], what)
        for what, turn in compared
    ]
    seeds, dialogues = tables[0].shape
    found = simultaneous(np.stack(tables))
    made: list[dict[str, Any]] = []
    for place, (what, turn) in enumerate(compared):
        low, high, p = found.low[place], found.high[place], found.p[place]
        least, most = LIMITS[what][0] - LIMITS[what][1], LIMITS[what][1] - LIMITS[what][0]
        if not found.error[place] > ROUNDING:  # all alike: what so many dialogues leave open
            _, low, high, _ = mean_interval(tables[place].mean(axis=0), limits=(least, most))
            p = np.nan
        made.append({
            "what": what, "turn": turn, "difference": found.mean[place], "low": max(least, low), "high": min(most, high),
            "p": p, "verdict": word_of(low, high, seeds=seeds, searched=True), "dialogues": dialogues, "seeds": seeds,
        })  # fmt: skip
    return pd.DataFrame(made)


def attention_by_turn(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of attention on the instruction: `policy`, `turn`, `attention`, `low`, `high`, `largest_layer`, `even`,
    `dialogues`, `seeds`; empty where none was measured.
    """
    seen = rows[rows["attention"].notna()]
    if seen.empty:
        return pd.DataFrame(
            columns=["policy", "turn", "attention", "low", "high", "largest_layer", "even", "dialogues", "seeds"]
        )
    found = by_turn(seen, "attention")
    others = seen.groupby(["policy", "turn"], as_index=False)[["largest_layer", "even"]].mean()
    return found[found["check"] == ALL].drop(columns="check").merge(others, on=["policy", "turn"], validate="one_to_one")


def learned_from(answers: pd.DataFrame) -> pd.DataFrame:
    """How often the last answers of the training dialogues keep the instruction, as `by_turn`."""
    train = answers[answers["part"] == "train"]
    return by_turn(train[train["turn"] == train["turn"].max()])


def dialogue_lines(plan: GhostAttentionPlan, runs: Path) -> Iterator[dict[str, Any]]:
    """The synthetic dialogues as they are trained on, with their texts: `dialogue`, `seed`, `policy`, `sampled_with` (the
    user turns in which the instruction stood when the answers were sampled), `instruction`, `check`, `value`, `messages`, and
    of each answer `kept` and `cut`.
    """
    settings = plan.settings
    said = pd.read_parquet(plan.user_turns.directory(runs) / "user_turns.parquet").set_index("dialogue_id")["instruction"]
    for seed, spec in plan.dialogues.items():
        for policy, placement in SAMPLED_WITH.items():
            table = pd.read_parquet(spec.directory(runs) / f"dialogues_{placement}.parquet")
            for name, rows in table.groupby("dialogue_id", sort=False):
                asked = settings.instructions[said[str(name)]]
                users = instructed(asked.instruction, list(rows["user"]), "first")
                yield {
                    "dialogue": name, "seed": seed, "policy": policy, "sampled_with": placement,
                    "instruction": asked.instruction, "check": asked.check, "value": asked.value,
                    "messages": [
                        {"role": role, "content": text}
                        for pair in zip(users, rows["answer"], strict=True)
                        for role, text in zip(("user", "assistant"), pair, strict=True)
                    ],
                    "kept": list(map(bool, rows["kept"])), "cut": list(map(bool, rows["cut"])),
                }  # fmt: skip
