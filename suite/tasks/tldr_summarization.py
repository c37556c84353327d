"""One-sentence summaries of forum posts: TL;DR (Fig. 2 right of Rafailov et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from suite.data.fields import said_of
from suite.tasks.text_format import Messages, TextExample, TextFormat
from suite.tasks.text_task import TextTask

MARK = "TL;DR:"
INSTRUCTION = "Summarize this forum post in one or two sentences."


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with `prompt` and `chosen`, `rejected` (comparisons) or `label` or `completion` (a reference summary).

    The mark between post and summary may be at the end of the one or the beginning of the other.
    """
    post, one = row.get("prompt"), row.get("label", row.get("completion"))
    sides = (row.get("chosen"), row.get("rejected")) if one is None else (one, None)
    if not isinstance(post, str) or not isinstance(sides[0], str) or (one is None and not isinstance(sides[1], str)):
        raise ValueError("prompt or summary is missing")
    chosen, rejected = (None if side is None else side.strip().removeprefix(MARK).strip() for side in sides)
    return TextExample((("user", post.strip().removesuffix(MARK).strip()),), chosen or "", rejected, **said_of(row))


def plain(messages: Messages) -> str:
    """The post, then the mark."""
    return f"{messages[-1][1]}\n{MARK}"


TASK = TextTask(
    form=TextFormat("tldr_summarization", example_of, plain, instruction=INSTRUCTION, stop=("\n",)),
    template="summarization_c", reference_answer="the reference summary", pairs="CarperAI/openai_summarize_comparisons",
    answers="CarperAI/openai_summarize_tldr",
)  # fmt: skip
