"""Agreement of raters as the paper's Table 2: files of verdicts → win rates by rater, agreement, Cohen's κ."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from suite.common.errors import UserError
from suite.evaluation.agreement import agreement_table, opinions
from suite.judges.outputs import read_verdicts
from suite.report.page import interval, page, said_in, table


def agreement_of(paths: Sequence[Path], people: set[str], *, seed: int) -> tuple[pd.DataFrame, int]:
    """One row per rater's win rate and per two raters' agreement, with the `matchup`.

    Args:
        paths, seed: Files of verdicts; of the bootstrap.
        people: Raters that are people beside those whose name begins with "human".

    Returns:
        The table, and how many matchups one rater alone judged, which are left out.

    Raises:
        UserError: A rater judges a matchup twice, is unknown, or no two decided a common comparison.
    """
    matchups: dict[str, dict[str, pd.DataFrame]] = {}
    for path in paths:
        verdicts = read_verdicts(path)
        named = verdicts.assign(**{n: verdicts.get(n, default) for n, default in (("judge", path.stem), ("matchup", ""))})
        if "template" in named and not named["judge"].str.startswith("human").any():
            named["judge"] = (named["judge"] + " " + named["template"].astype(str)).str.strip()
        for (matchup, rater), rows in named.groupby(["matchup", "judge"], sort=False, dropna=False):
            raters = matchups.setdefault(str(matchup), {})
            if rater in raters:
                raise UserError(f"{path}: rater {rater!r} judges {matchup or 'this matchup'} in an earlier file too")
            raters[str(rater)] = opinions(rows)
    if unknown := people - {rater for raters in matchups.values() for rater in raters}:
        known = ", ".join(next(iter(matchups.values())))
        raise UserError(f"--humans {', '.join(sorted(unknown))}: no such rater; there are {known}")
    shared = {matchup: raters for matchup, raters in matchups.items() if len(raters) > 1} or matchups
    tables = []
    for matchup, raters in shared.items():
        groups = {rater: "humans" if rater in people or rater.startswith("human") else rater for rater in raters}
        tables.append(agreement_table(raters, groups, seed=seed).assign(matchup=matchup))
    whole = pd.concat(tables, ignore_index=True)
    if not (whole["what"] == "agreement").any():
        raise UserError("no two raters decided a common comparison; compare files of the same prompts")
    return whole, len(matchups) - len(shared)


def agreement_page(agreement: pd.DataFrame) -> str:
    """The table laid out as the paper's, one column a matchup, and the paper's own below."""
    rows: dict[str, dict[str, str]] = {}
    for row in agreement.sort_values("what", ascending=False, kind="stable").to_dict("records"):
        pair, matchup = f"{row['first']}–{row['second']}", row["matchup"] or "verdicts"
        name = f"{row['first']} win %" if row["what"] == "win rate" else f"{pair} agree %"
        cell = interval(100 * row["share"], 100 * row["low"], 100 * row["high"], ".0f")
        rows.setdefault(name, {})[matchup] = f"{cell} n = {row['judgments']:,}"
        if row["what"] == "agreement":
            rows.setdefault(f"{pair} κ", {})[matchup] = interval(row["kappa"], row["kappa_low"], row["kappa_high"], ".2f")
    ours = pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("").reset_index()
    paper = said_in("paper")["judge_agreement"]
    lead = "Brackets: 95 % over prompts. n: judgments that name a winner; for agreement, pairs of them."
    theirs = f"{paper['paper']}\n\n{table(paper['table'])}"
    return page("Agreement of raters", [("", lead), ("", table(ours)), ("The paper's Table 2", theirs)])
