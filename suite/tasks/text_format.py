"""Rows of text data: a conversation to continue, answers that people wrote or preferred, and how both become tokens."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from suite.data.preference_data import Completion, Prompt
from suite.interfaces import Example

BAD_ROW = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a row may raise that is in no known format."""
AS_IT_IS = "text"
"""Role of a prompt that is no message: continued as it is, with or without a chat template."""

Messages = tuple[tuple[str, str], ...]
"""(role, content) of a conversation; roles are user and assistant, the last message is the user's."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One row of a data set: what is to be answered, and the answers."""

    messages: Messages
    chosen: str
    """The preferred answer, or the reference answer where there is only one."""
    rejected: str | None = None


@dataclass(frozen=True)
class TextFormat:
    """How rows of a data set are read: what differs between summaries and dialogues.

    Attributes:
        name: Of the task, in messages and in the ids of prompts.
        example_of: A row in any of the task's known formats → example; ValueError says what is wrong with a row.
        plain: Messages → the text that a model without a chat template continues.
        instruction: Put before the last message for chat models; empty if the message says itself what is wanted.
        stop: Where the continuation of a model that was not trained on the task ends.
        cut: Shorten the last message where the prompt is too long, instead of leaving the prompt out.
    """

    name: str
    example_of: Callable[[Mapping[str, Any]], TextExample]
    plain: Callable[[Messages], str]
    instruction: str = ""
    stop: tuple[str, ...] = ()
    cut: bool = False

    def read(self, row: Mapping[str, Any]) -> TextExample:
        """A row as an example of which all texts are texts; raises one of `BAD_ROW` where it is none."""
        example = self.example_of(row)
        rejected = "" if example.rejected is None else example.rejected
        texts = [example.chosen, rejected, *(content for _, content in example.messages)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a message has no text")
        return example

    def prompt_id(self, messages: Messages) -> str:
        """Task and a hash of the plain prompt, whatever its white space: data sets of the same prompts differ in it."""
        return f"{self.name}-{hashlib.sha256(' '.join(self.plain(messages).split()).encode()).hexdigest()[:12]}"

    def shown(self, messages: Messages) -> str:
        """What a judge is shown as the prompt."""
        if len(messages) == 1:
            return messages[0][1]
        return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in messages)

    def prompt_text(self, messages: Messages, tokenizer: Any) -> str:
        """What a policy continues: through the chat template if there is one, else `plain`."""
        if not getattr(tokenizer, "chat_template", None) or messages[0][0] == AS_IT_IS:
            return self.plain(messages)
        role, last = messages[-1]
        turns = [*messages[:-1], (role, f"{self.instruction}\n\n{last}" if self.instruction else last)]
        return tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns], tokenize=False, add_generation_prompt=True
        )


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens."""

    max_prompt_tokens: int
    """Longer prompts are left out and counted, or cut where the task allows it."""
    max_new_tokens: int
    """Longer answers are cut and carry no EOS."""


def tokenise(form: TextFormat, example: TextExample, tokenizer: Any, limits: Limits) -> Example | str:
    """The example as tokens, prompt and answers joined as ids; or why it cannot be used."""
    messages = example.messages
    try:
        text = form.prompt_text(messages, tokenizer)
    except TemplateError as error:
        return why(error)
    ids = prompt_ids(text, tokenizer)
    if len(ids) > limits.max_prompt_tokens and form.cut:
        messages = _shortened(messages, len(ids) - limits.max_prompt_tokens, tokenizer)
        text = form.prompt_text(messages, tokenizer)
        ids = prompt_ids(text, tokenizer)
    if not ids or len(ids) > limits.max_prompt_tokens:
        return "prompt too long" if ids else "no prompt"
    prompt = Prompt(form.prompt_id(example.messages), tuple(ids), text)
    chosen, rejected = (
        None if answer is None else answer_of(prompt, follows(answer, messages, tokenizer), tokenizer, limits.max_new_tokens)
        for answer in (example.chosen, example.rejected)
    )
    if chosen and rejected and rejected.ids == chosen.ids:
        return "identical answers"
    return Example(prompt, form.shown(example.messages), example.chosen.strip(), chosen, rejected)


def follows(answer: str, messages: Messages, tokenizer: Any) -> str:
    """How an answer follows its prompt: as it is after a text; in a conversation trimmed, after a blank without a template."""
    if messages[0][0] == AS_IT_IS:
        return answer
    return answer.strip() if getattr(tokenizer, "chat_template", None) else f" {answer.strip()}"


def answer_of(prompt: Prompt, text: str, tokenizer: Any, max_new_tokens: int) -> Completion:
    """An answer written by someone, with EOS; cut to `max_new_tokens` without EOS where it is longer."""
    ids = [*_ids(text, tokenizer), tokenizer.eos_token_id]
    if len(ids) <= max_new_tokens:
        return Completion(prompt, tuple(ids), text, truncated=False)
    ids = ids[:max_new_tokens]
    return Completion(prompt, tuple(ids), tokenizer.decode(ids, clean_up_tokenization_spaces=False), truncated=True)


def why(error: Exception) -> str:
    """What is wrong with a row, in one line."""
    if isinstance(error, TemplateError):
        return f"the chat template refuses it: {' '.join(str(error).split())}"
    return str(error) if type(error) is ValueError else f"not in a known format ({type(error).__name__}: {error})"


def prompt_ids(text: str, tokenizer: Any) -> list[int]:
    """A prompt's tokens, BOS first where the tokenizer puts one before every text and the text has none."""
    ids, first = _ids(text, tokenizer), tokenizer("")["input_ids"][:1]
    return [*first, *ids] if first == [tokenizer.bos_token_id] and ids[:1] != first else ids


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _shortened(messages: Messages, excess: int, tokenizer: Any) -> Messages:
    """The last message without its last tokens, a few more than `excess` since cut text may tokenise differently."""
    role, content = messages[-1]
    ids = _ids(content, tokenizer)
    kept = tokenizer.decode(ids[: max(1, len(ids) - excess - 2)], clean_up_tokenization_spaces=False)
    return (*messages[:-1], (role, kept))


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says: its text, or its parts of text. A `ValueError` where there is none, or a part is no text."""
    content = message["content"]
    if isinstance(content, list) and content and all(part.get("type") == "text" for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError("a message has no text, or more than text")
    return content


def turns_of(conversation: Sequence[Mapping[str, Any]]) -> Messages:
    """A list of messages with role and content as `Messages`; a `ValueError` if the last is not the user's."""
    found = tuple((str(message["role"]), text_of(message)) for message in conversation)
    if not found or found[-1][0] != "user":
        raise ValueError("conversation does not end with the user")
    return found
