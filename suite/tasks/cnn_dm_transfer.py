"""News articles for policies that learned to summarise forum posts: CNN/DailyMail (Table 1 of Rafailov et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from suite.tasks import tldr_summarization
from suite.tasks.text_format import TextExample, TextFormat
from suite.tasks.text_task import TextTask


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with `article` and `highlights`."""
    article, highlights = row.get("article"), row.get("highlights")
    if not isinstance(article, str) or not isinstance(highlights, str):
        raise ValueError("article or highlights is missing")
    return TextExample((("user", article.strip()),), highlights.strip())


TASK = TextTask(
    form=TextFormat(
        "cnn_dm_transfer", example_of, tldr_summarization.plain, cut=True, stop=("\n",),
        instruction="Summarize this news article in one or two sentences.",
    ),
    template="news_article", reference_answer="the article's highlights", answers="abisee/cnn_dailymail:3.0.0",
)  # fmt: skip
