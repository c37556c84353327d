"""News articles for policies that learned to summarise forum posts: CNN/DailyMail (Table 1 of Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.data.tasks import tldr_summarization
from suite.data.text_tasks import TextExample, TextTask


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with `article` and `highlights`.

    Raises:
        ValueError: A column is missing.
    """
    article, highlights = row.get("article"), row.get("highlights")
    if not isinstance(article, str) or not isinstance(highlights, str):
        raise ValueError("article or highlights is missing")
    return TextExample((("user", article.strip()),), highlights.strip())


TASK = TextTask(
    name="cnn_dm_transfer", template="news_article", pairs="", answers="abisee/cnn_dailymail:3.0.0", example_of=example_of,
    plain=tldr_summarization.plain, instruction="Summarize this news article in one or two sentences.", stop=("\n",), cut=True,
)  # fmt: skip
