"""Anybody's preference data: every format that TRL documents, texts taken as they are."""

from collections.abc import Mapping
from typing import Any

from suite.data.fields import fields_of
from suite.data.readers import LAST_TURN, split_shared_prompt
from suite.tasks import hh_dialogue
from suite.tasks.hh_dialogue import SPEAKER
from suite.tasks.text_format import AS_IT_IS, Messages, TextExample, TextFormat
from suite.tasks.text_task import TextTask


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row in any layout that `suite.data.fields` knows."""
    found = fields_of(row)
    prompt, chosen, rejected, guessed = found.prompt, found.chosen, found.rejected, False
    if prompt is None and not found.turns and rejected is not None:
        prompt, chosen, rejected = split_shared_prompt(chosen, rejected)
        guessed = not prompt.endswith(LAST_TURN)
    if any(SPEAKER.search(answer) for answer in (chosen, rejected or "")):
        raise ValueError("an answer goes on with another turn")
    messages = found.turns or ((AS_IT_IS, prompt or ""),)
    return TextExample(messages, chosen, rejected, guessed=guessed, **found.said)


def plain(messages: Messages) -> str:
    """Text as it is; conversations in the format of Anthropic's HH, for models without a chat template."""
    return messages[0][1] if messages[0][0] == AS_IT_IS else hh_dialogue.plain(messages)


def same(messages: Messages) -> str:
    """What is said, by whomever and after whatever system message: one question is one prompt in every layout."""
    return " ".join(SPEAKER.sub(" ", f"\n\n{content.strip()}") for role, content in messages if role != "system")


FORM = TextFormat("own_data", example_of, plain, same=same)
TASK = TextTask(form=FORM, template="dialogue_helpfulness", reference_answer="the chosen answer", on_chosen=True)
