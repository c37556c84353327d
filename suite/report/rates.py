"""The page of a learning-rate search."""

from collections.abc import Mapping

import pandas as pd

from suite.analysis.rate_search import MAX_KL
from suite.report.page import code, page, said_in, table
from suite.report.tables import with_interval


def rates_page(command: str, scores: pd.DataFrame, chosen: Mapping[str, str]) -> str:
    """Every candidate's score (`suite.analysis.rate_search.score_table`), and what was chosen."""
    rows = [
        {
            "method": row["method"], "setting": row["setting"], "lr": f"{row['lr']:g}", "score": f"{row['score']:.4g}",
            "best reward": with_interval(row, "reward"), "its KL, nats": with_interval(row, "kl", ".2f"), "n prompts": row["n"],
        }
        for _, row in scores.iterrows()
    ]  # fmt: skip
    lead = said_in("words")["rates"]["lead"].format(max_kl=MAX_KL)
    sections = [("", f"Last command: {code(command)}"), ("", lead), ("", table(rows)), ("", f"Chosen: {dict(chosen)}")]
    return page("Learning rates", sections)
