"""Dialogue with an assistant: Anthropic's helpful and harmless comparisons (Fig. 3 of Rafailov et al. 2023)."""

import re
from collections.abc import Mapping
from typing import Any

from suite.data.fields import fields_of
from suite.data.readers import split_shared_prompt
from suite.tasks.text_format import Messages, TextExample, TextFormat
from suite.tasks.text_task import TextTask

ROLES = {"Human": "user", "Assistant": "assistant"}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def example_of(row: Mapping[str, Any]) -> TextExample:
    """A row with whole dialogues as text or as messages, with or without a prompt (`suite.data.fields`).

    A dialogue splits after its last assistant turn; what comes before must be the same on both sides.
    """
    found = fields_of(row)
    prompt, chosen, rejected = found.prompt, found.chosen, found.rejected
    if rejected is None:
        raise ValueError("rejected is missing")
    if found.turns:
        return TextExample(found.turns, chosen, rejected, **found.said)
    if prompt is None:
        prompt, chosen, rejected = split_shared_prompt(chosen, rejected)
    elif chosen.startswith(prompt) and rejected.startswith(prompt):  # the sides repeat the prompt
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if any(SPEAKER.search(answer) for answer in (chosen, rejected)):
        raise ValueError("an answer goes on with another turn")
    return TextExample(messages_of(prompt), chosen, rejected, **found.said)


def messages_of(text: str) -> Messages:
    r"""`\n\nHuman: …\n\nAssistant: … \n\nAssistant:` as messages; text without speakers is one message of the user."""
    parts = SPEAKER.split(text if text.startswith("\n") else f"\n\n{text}")
    if len(parts) == 1:
        return (("user", text.strip()),)
    before, *rest = parts
    turns = [(ROLES[who], said.strip()) for who, said in zip(rest[::2], rest[1::2], strict=True)]
    if before.strip():
        raise ValueError("text before the first speaker")
    if turns[-1] == ("assistant", ""):
        turns.pop()
    if not turns or turns[-1][0] != "user":
        raise ValueError("the human is not the last to speak")
    return tuple(turns)


def plain(messages: Messages) -> str:
    """The format of the data set."""
    names = {role: name for name, role in ROLES.items()}
    turns = (f"\n\n{names.get(role, role.capitalize())}: {content.strip()}" for role, content in messages)
    return "".join(turns) + "\n\nAssistant:"


TASK = TextTask(
    form=TextFormat("hh_dialogue", example_of, plain, stop=("\n\nHuman:", "\n\nAssistant:")),
    template="dialogue_helpfulness", reference_answer="the chosen answer", pairs="Anthropic/hh-rlhf", on_chosen=True,
)  # fmt: skip
