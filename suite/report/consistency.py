"""Tables, figures and words on who keeps an instruction over the turns of a dialogue. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.consistency import (
    ALL,
    GAINED,
    KEPT,
    Consistency,
    attention_by_turn,
    by_turn,
    differences,
    in_all,
    learned_from,
)
from suite.analysis.records import write_table
from suite.analysis.verdict import FEWEST_SEEDS, WORDS
from suite.report.figures import styles_of
from suite.report.files import captioned, figure_file
from suite.report.page import Section, inert, interval, said_in, table
from suite.report.tables import data_table
from suite.study.ghost_attention import GATT, GIVEN, PLAIN

TABLE, BY_TURN = "consistency.csv", "consistency_by_turn.csv"
POLICIES = (GIVEN, PLAIN, GATT)
HOPELESS = 0.05
"""Of first answers."""
MEANS = {KEPT: "Kept by turn", "unasked": "Kept without being asked", GAINED: "Gained by asking"}
"""Columns whose means are told → heading."""


def write_consistency(tables: Consistency, out: Path, *, seen_from: Path | None = None) -> str:
    """Write `consistency.csv` (a row per answer, no texts), `consistency_by_turn.csv`, `consistency.svg` and, where attention
    was measured, `attention.svg` into a folder; returns what is to be said, in Markdown, with links to the figures as
    seen from the folder itself or from another, `seen_from`.

    Raises:
        UserError: Fewer than two test dialogues were answered by all.
    """
    rows = in_all(tables.answers)
    means = {column: by_turn(rows, column) for column in MEANS}
    gaps, attention = differences(rows), attention_by_turn(rows)
    write_table(out / TABLE, tables.answers)
    write_table(out / BY_TURN, summary_table(means, gaps, attention))
    figures = [path.relative_to(seen_from or out).as_posix() for path in draw(out, out)]
    parts = [f"**{heading}**\n\n{body}" if heading else body for heading, body in _sections(tables, means, gaps, attention)]
    return "\n\n".join([parts[0], *(f"![{Path(name).stem}]({name})" for name in figures), *parts[1:]])


def draw(folder: Path, out: Path) -> list[Path]:
    """The figures of a folder from its `consistency.csv` alone, into `out`; returns what was written."""
    rows = in_all(pd.read_csv(folder / TABLE))
    kept, unasked, attention = by_turn(rows), by_turn(rows, "unasked"), attention_by_turn(rows)
    dialogues, seeds = rows["dialogue_id"].nunique(), rows["seed"].nunique()
    bars = f"Bars: 95 % over {dialogues} dialogues" + (f" and {seeds} seeds." if seeds > 1 else ", one seed.")
    with figure_file(out / "consistency", (6.4, 4.4)) as (figure, ax, written):
        _lines(kept[kept["check"] == ALL], KEPT, ax)
        _lines(unasked[unasked["check"] == ALL].drop(columns=["low", "high"]), "unasked", ax, ls=":", label=False)
        ax.set(xlabel="turn", ylabel="answers that keep the instruction", ylim=(-0.02, 1.02))
        ax.legend(fontsize=8)
        said = "The instruction stands in the first user turn only, which every answer sees as part of the conversation."
        dotted = "Dotted: the same dialogues without the instruction, answers that would have kept it."
        captioned(figure, "Instructions kept over a dialogue", [said, dotted, bars])
    files = list(written)
    if attention.empty:
        (out / "attention.svg").unlink(missing_ok=True)  # of another study in the same folder
        return files
    with figure_file(out / "attention", (8.8, 4.4), columns=2, share=False) as (figure, axes, written):
        _lines(attention, "attention", axes[0])
        _lines(attention.drop(columns=["low", "high"]), "largest_layer", axes[1])
        even = attention.groupby("turn")["even"].mean()
        for ax, title in zip(axes, ("mean over layers", "layer with the most"), strict=True):
            ax.plot(even.index, even, color="black", ls=":", lw=0.9, label="all tokens alike")
            ax.set(xlabel="turn", title=title, ylim=(0, None))
        axes[0].set_ylabel("share of attention on the instruction")
        axes[0].legend(fontsize=8)
        seen = f"Answers of {attention['dialogues'].min()} dialogues; bars: 95 % over them" + " and the seeds." * (seeds > 1)
        captioned(figure, "Attention to the instruction in the first turn", [seen])
        figure.subplots_adjust(wspace=0.2)
    return [*files, *written]


def _lines(found: pd.DataFrame, column: str, ax: Any, *, ls: str = "-", label: bool = True) -> None:
    """One line per policy over the turns, with bars where there are any, side by side."""
    for place, (policy, (colour, marker)) in enumerate(styles_of(list(POLICIES)).items()):
        rows = found[found["policy"] == policy].sort_values("turn")
        errors = (
            [(rows[column] - rows["low"]).clip(lower=0), (rows["high"] - rows[column]).clip(lower=0)] if "low" in rows else None
        )
        ax.errorbar(
            rows["turn"] + 0.04 * (place - 1), rows[column], errors, color=colour, marker=marker, ms=5, lw=1.3, capsize=2,
            ls=ls, label=policy if label else None,
        )  # fmt: skip
    ax.set_xticks(sorted(found["turn"].unique()))
    ax.grid(alpha=0.25)


def summary_table(means: Mapping[str, pd.DataFrame], gaps: pd.DataFrame, attention: pd.DataFrame) -> pd.DataFrame:
    """All means in one long table: `what`, `policy`, `check`, `turn`, `value`, `low`, `high`, `p`, `verdict`, `dialogues`,
    `seeds`.
    """
    parts = [
        *(found.rename(columns={column: "value"}).assign(what=column) for column, found in means.items()),
        gaps.rename(columns={"difference": "value"}).assign(
            what=gaps["what"] + ", difference", policy=f"{GATT} - {PLAIN}", check=ALL
        ),
        attention.rename(columns={"attention": "value"}).assign(what="attention", check=ALL),
        attention.drop(columns=["low", "high"]).rename(columns={"largest_layer": "value"}).assign(
            what="attention, largest layer", check=ALL
        ),
        attention.drop(columns=["low", "high"]).rename(columns={"even": "value"}).assign(
            what="attention, all tokens alike", check=ALL
        ),
    ]  # fmt: skip
    columns = ["what", "policy", "check", "turn", "value", "low", "high", "p", "verdict", "dialogues", "seeds"]
    return pd.concat([part.reindex(columns=columns) for part in parts if len(part)], ignore_index=True)


def _sections(
    tables: Consistency, means: Mapping[str, pd.DataFrame], gaps: pd.DataFrame, attention: pd.DataFrame
) -> list[Section]:
    words, kept = said_in("words")["consistency"], means[KEPT]
    overall = kept[kept["check"] == ALL]
    seeds = sorted(tables.answers["seed"].unique())
    lead = words["lead"].format(
        given=GIVEN, plain=PLAIN, gatt=GATT, dialogues=overall["dialogues"].min(), turns=overall["turn"].max(),
        seeds=", ".join(map(str, seeds)),
    )  # fmt: skip
    learned = learned_from(tables.answers)
    return [
        ("", f"{lead}\n\n{_verdict_words(gaps, len(seeds))}"),
        *((heading, f"{words[column]}\n\n{_by_turn_table(means[column], column)}") for column, heading in MEANS.items()),
        ("GAtt against plain SFT", f"{words['differences']}\n\n{_gap_table(gaps)}"),
        ("By kind of instruction", f"{_kind_table(kept)}\n\n{_hopeless(kept)}".strip()),
        ("What was learned from", f"{words['learned']}\n\n{_learned_table(learned)}"),
        *(
            [("Attention to the instruction", f"{words['attention']}\n\n{_attention_table(attention)}")]
            if len(attention)
            else []
        ),
        ("The dialogues", data_table(tables.counts)),
    ]


def _verdict_words(gaps: pd.DataFrame, seeds: int) -> str:
    """What the comparison says at the last turn: of what is kept, and of what the instruction has to do with it."""
    kept, gained = gaps.drop_duplicates("what", keep="last").set_index("what").loc[[KEPT, GAINED]].to_dict("records")
    of_kept, of_gained = (interval(row["difference"], row["low"], row["high"], "+.3f") for row in (kept, gained))
    if seeds < FEWEST_SEEDS:
        return (
            f"At turn {kept['turn']} GAtt less plain SFT is {of_kept} in what is kept, {of_gained} in what is gained by "
            f"asking, of these policies; a verdict takes {FEWEST_SEEDS} seeds."
        )
    return (
        f"**At turn {kept['turn']} GAtt is {WORDS[kept['verdict']]} plain SFT** ({of_kept}). In what is gained by asking it is "
        f"{WORDS[gained['verdict']]} plain SFT ({of_gained})."
    )


def _by_turn_table(found: pd.DataFrame, column: str) -> str:
    rows: list[dict[str, Any]] = []
    for turn, of_turn in found[found["check"] == ALL].groupby("turn"):
        known = {row["policy"]: row for row in of_turn.to_dict("records")}
        rows.append({"turn": turn, **{policy: _cell(known[policy], column) for policy in POLICIES if policy in known}})
    return table(rows)


def _cell(row: Mapping[str, Any], column: str) -> str:
    return interval(row[column], row["low"], row["high"])


def _gap_table(gaps: pd.DataFrame) -> str:
    return table([
        {
            "what": row["what"], "turn": row["turn"],
            "GAtt less plain SFT": interval(row["difference"], row["low"], row["high"], "+.3f"),
            "p (max-T)": "–" if pd.isna(row["p"]) else f"{row['p']:.3f}", "verdict": row["verdict"],
            "n dialogues": row["dialogues"], "n seeds": row["seeds"],
        }
        for row in gaps.to_dict("records")
    ])  # fmt: skip


def _kind_table(kept: pd.DataFrame) -> str:
    last = kept["turn"].max()
    rows = []
    for check, of_check in kept[kept["check"] != ALL].groupby("check", sort=False):
        known = {(row["policy"], row["turn"]): row for row in of_check.to_dict("records")}
        cells = {
            f"{policy}, turn {turn}": _cell(known[policy, turn], "kept")
            for turn in dict.fromkeys((1, last))
            for policy in POLICIES
            if (policy, turn) in known
        }
        rows.append({"check": inert(str(check)), "n dialogues": of_check["dialogues"].min(), **cells})
    return table(rows)


def _hopeless(kept: pd.DataFrame) -> str:
    first = kept[(kept["policy"] == GIVEN) & (kept["turn"] == 1) & (kept["check"] != ALL) & (kept["kept"] < HOPELESS)]
    kinds = " and ".join(inert(str(check)) for check in first["check"])
    return said_in("words")["consistency"]["hopeless"].format(kinds=kinds) if kinds else ""


def _learned_table(learned: pd.DataFrame) -> str:
    rows = []
    for check, of_check in learned.groupby("check", sort=False):
        known = {row["policy"]: row for row in of_check.to_dict("records")}
        cells = {f"learned by {policy}": _cell(known[policy], "kept") for policy in (PLAIN, GATT)}
        rows.append({"check": inert(str(check)), **cells, "n dialogues": known[GATT]["dialogues"]})
    return table(rows)


def _attention_table(attention: pd.DataFrame) -> str:
    return table([
        {
            "turn": row["turn"], "policy": row["policy"],
            "attention": interval(row["attention"], row["low"], row["high"], ".4f"),
            "largest layer": f"{row['largest_layer']:.4f}", "all tokens alike": f"{row['even']:.4f}",
            "n dialogues": row["dialogues"],
        }
        for row in attention.sort_values("turn", kind="stable").to_dict("records")
    ])  # fmt: skip
