"""Anybody's preference data: every format that TRL documents, texts taken as they are."""

from collections.abc import Mapping
from typing import Any

from suite.data.readers import split_shared_prompt
from suite.tasks import hh_dialogue
from suite.tasks.text_format import AS_IT_IS, Messages, TextExample, TextFormat
from suite.tasks.text_task import TextTask


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with `chosen` and `rejected`, with or without `prompt`, as text or as conversations."""
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


FORM = TextFormat("own_data", example_of, plain)
TASK = TextTask(form=FORM, template="dialogue_helpfulness", reference_answer="the chosen answer", on_chosen=True)
