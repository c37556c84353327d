"""Anybody's preference data: every format that TRL documents, texts taken as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.data.preference_tables import split_shared_prompt
from suite.data.tasks import hh_dialogue
from suite.data.text_tasks import AS_IT_IS, Messages, TextExample, TextTask


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with `chosen` and `rejected`, with or without `prompt`, as text or as conversations.

    Raises:
        ValueError: No such row, or the two sides continue different prompts.
    """
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if isinstance(chosen, str) and isinstance(prompt, str) and rejected is None:  # a prompt with a reference answer
        return TextExample(((AS_IT_IS, prompt),), chosen)
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            prompt, chosen, rejected = split_shared_prompt(chosen, rejected)
        if not isinstance(prompt, str):
            raise ValueError("prompt is no text, but chosen and rejected are")
        return TextExample(((AS_IT_IS, prompt),), chosen, rejected)
    return hh_dialogue.example_of(row)


def plain(messages: Messages) -> str:
    """Text as it is; conversations in the format of Anthropic's HH, for models without a chat template."""
    return messages[0][1] if messages[0][0] == AS_IT_IS else hh_dialogue.plain(messages)


TASK = TextTask(
    name="own_data", template="dialogue_helpfulness", pairs="", answers="", example_of=example_of, plain=plain, instruction="",
    stop=(),
)  # fmt: skip
