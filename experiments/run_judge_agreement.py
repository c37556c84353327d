"""Do judges agree with people? Table 2 of Rafailov et al. 2023 for your verdicts: win rates by rater, agreement, Cohen's κ.

Each file is one rater's verdicts on one matchup, as `suite judge run` writes them (verdicts.csv), or any CSV, JSONL or parquet
with the columns prompt_id and winner (policy, opponent or tie), and judge and matchup if they are to be told apart by more
than the file's name. Raters whose judge begins with "human" are people. Ties and contradictory orders are left out, as in the
paper; the paper's numbers stand beside.

Examples:
  python experiments/run_judge_agreement.py s/verdicts.csv c/verdicts.csv alice/verdicts.csv bob/verdicts.csv
  python experiments/run_judge_agreement.py gpt4.jsonl people.jsonl --humans people --out agreement
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from suite.errors import UserError, one_line_errors
from suite.evaluation.agreement import agreement_table, opinions
from suite.files import check_writable, write_atomically
from suite.judges.outputs import read_verdicts

PAPER = pd.DataFrame(
    {
        "": [
            "judgments", "GPT-4 (S) win %", "GPT-4 (C) win %", "human win %", "GPT-4 (S)–human agree %",
            "GPT-4 (C)–human agree %", "human–human agree %",
        ],
        "DPO": ["272", "47", "54", "58", "70", "67", "65"],
        "SFT": ["122", "27", "32", "43", "77", "79", "–"],
        "PPO-1": ["199", "13", "12", "17", "86", "85", "87"],
    }
)  # fmt: skip
"""Table 2: TL;DR summaries, each method against PPO at temperature 0."""


@dataclass(frozen=True)
class Arguments:
    """Command line of the agreement table."""

    verdicts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of verdicts, at least two."""
    humans: str = ""
    """Comma-separated raters (their judge, or the file's name without ending) that are people too."""
    seed: int = 0
    """Of the bootstrap."""
    out: Path = Path("agreement")
    """Folder for summary.md and agreement.csv."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if len(arguments.verdicts) < 2:
        raise UserError("two files of verdicts or more are needed")
    check_writable(arguments.out)
    people = {name.strip() for name in arguments.humans.split(",") if name.strip()}
    matchups: dict[str, dict[str, pd.DataFrame]] = {}
    for path in arguments.verdicts:
        table = read_verdicts(path)
        named = table.assign(**{name: table.get(name, default) for name, default in (("judge", path.stem), ("matchup", ""))})
        if "template" in named and not named["judge"].str.startswith("human").any():
            named["judge"] = (named["judge"] + " " + named["template"].astype(str)).str.strip()
        for (matchup, rater), rows in named.groupby(["matchup", "judge"], sort=False, dropna=False):
            raters = matchups.setdefault(str(matchup), {})
            if rater in raters:
                raise UserError(f"{path}: rater {rater!r} judges {matchup or 'this matchup'} in an earlier file too")
            raters[str(rater)] = opinions(rows)
    unknown = people - {rater for raters in matchups.values() for rater in raters}
    if unknown:
        raise UserError(
            f"--humans {', '.join(sorted(unknown))}: no such rater; there are {', '.join(next(iter(matchups.values())))}"
        )
    lonely = [matchup for matchup, raters in matchups.items() if len(raters) < 2]
    if len(lonely) < len(matchups):
        matchups = {matchup: raters for matchup, raters in matchups.items() if matchup not in lonely}
        print(f"{len(lonely)} matchups that one rater alone judged are left out\n" if lonely else "", end="")
    tables = []
    for matchup, raters in matchups.items():
        groups = {rater: "humans" if rater in people or rater.startswith("human") else rater for rater in raters}
        tables.append(agreement_table(raters, groups, seed=arguments.seed).assign(matchup=matchup))
    whole = pd.concat(tables, ignore_index=True)
    if not (whole["what"] == "agreement").any():
        raise UserError("no two raters decided a common comparison; compare files of the same prompts")
    write_atomically(arguments.out / "agreement.csv", lambda path: whole.to_csv(path, index=False, float_format="%.6g"))
    page = report(whole)
    write_atomically(arguments.out / "summary.md", lambda path: path.write_text(page))
    print(f"{page}\nWritten to {arguments.out}: summary.md, agreement.csv")
    return 0


def report(table: pd.DataFrame) -> str:
    """The table laid out as the paper's, one column a matchup, and the paper's own below."""

    def shown(share: float, low: float, high: float, digits: int) -> str:
        if pd.isna(share):
            return "–"
        scale = 100 if digits == 0 else 1
        return f"{scale * share:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"

    rows: dict[str, dict[str, str]] = {}
    for _, row in table.sort_values("what", ascending=False, kind="stable").iterrows():
        name = f"{row['first']} win %" if row["what"] == "win rate" else f"{row['first']}–{row['second']} agree %"
        cell = f"{shown(row['share'], row['low'], row['high'], 0)} n = {row['judgments']:,}"
        rows.setdefault(name, {})[row["matchup"] or "verdicts"] = cell
        if row["what"] == "agreement":
            kappa = shown(row["kappa"], row["kappa_low"], row["kappa_high"], 2)
            rows.setdefault(f"{row['first']}–{row['second']} κ", {})[row["matchup"] or "verdicts"] = kappa
    ours = pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("")
    return (
        "# Agreement of raters\n\n"
        "Brackets: 95 % over prompts. n: judgments that name a winner; for agreement, pairs of them.\n\n"
        f"{ours.to_markdown()}\n\n## The paper's Table 2\n\nTL;DR summaries, each method against PPO at temperature 0 "
        "(Rafailov et al. 2023; S and C: two wordings of the question). Printed without intervals; Wilson's for the humans' "
        f"58 % would be 52 to 64, for GPT-4 (C) 48 to 60, for GPT-4 (S) 41 to 53.\n\n{PAPER.to_markdown(index=False)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
