"""Tasks made of texts: a conversation to continue, answers that people wrote or preferred, and how both become tokens."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from suite.data.preference_data import Completion, Prompt
from suite.errors import UserError, did_you_mean

TASKS = ("hh_dialogue", "tldr_summarization", "cnn_dm_transfer", "own_data")
BAD_ROW = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a row may raise that is in no known format."""
AS_IT_IS = "text"
"""Role of a prompt that is no message: continued as it is, with or without a chat template."""

Messages = tuple[tuple[str, str], ...]
"""(role, content) of a conversation; roles are user and assistant, the last message is the user's."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One row of a data set.

    Attributes:
        messages: What is to be answered.
        chosen: The preferred answer, or the reference answer where there is only one.
        rejected: The other one, if there is one.
    """

    messages: Messages
    chosen: str
    rejected: str | None = None


@dataclass(frozen=True)
class TextTask:
    """What differs between summaries and dialogues.

    Attributes:
        name: Of its module in `suite.data.tasks`.
        template: What a judge is asked (`suite.judges.templates`).
        pairs: Hub name of the preference data of the paper; empty if the task has none.
        answers: Hub name of prompts with reference answers; empty if the chosen answers of `pairs` are the references.
        example_of: A row in any of the task's known formats → example; ValueError says what is wrong with a row.
        plain: Messages → the text that a model without a chat template continues.
        instruction: Put before the last message for chat models; empty if the message says itself what is wanted.
        stop: Where the continuation of a model that was not trained on the task ends.
        cut: Shorten the last message where the prompt is too long, instead of leaving the prompt out.
    """

    name: str
    template: str
    pairs: str
    answers: str
    example_of: Callable[[Mapping[str, Any]], TextExample]
    plain: Callable[[Messages], str]
    instruction: str
    stop: tuple[str, ...]
    cut: bool = False

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


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """An example as a policy sees it, and as it came: the prompt as people read it (`shown`), the whole chosen `answer`."""

    prompt: Prompt
    shown: str
    answer: str
    chosen: Completion
    rejected: Completion | None


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens."""

    max_prompt_tokens: int
    """Longer prompts are left out and counted, or cut where the task allows it."""
    max_new_tokens: int
    """Longer answers are cut and carry no EOS."""


def load_task(name: str) -> TextTask:
    """The task of a module in `suite.data.tasks`.

    Raises:
        UserError: There is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} is unknown; {did_you_mean(name, TASKS)}")
    return pkgutil.resolve_name(f"suite.data.tasks.{name}:TASK")


def prompt_id(task: TextTask, messages: Messages) -> str:
    """Task and a hash of the plain prompt, whatever its white space: data sets of the same prompts differ in it."""
    return f"{task.name}-{hashlib.sha256(' '.join(task.plain(messages).split()).encode()).hexdigest()[:12]}"


def tokenise(task: TextTask, example: TextExample, tokenizer: Any, limits: Limits) -> TokenisedExample | str:
    """The example as tokens, prompt and answers joined as ids; or why it cannot be used."""
    messages = example.messages
    try:
        text = task.prompt_text(messages, tokenizer)
    except TemplateError as error:
        return why(error)
    ids = prompt_ids(text, tokenizer)
    if len(ids) > limits.max_prompt_tokens:
        if not task.cut:
            return "prompt too long"
        messages = _shortened(messages, len(ids) - limits.max_prompt_tokens, tokenizer)
        text = task.prompt_text(messages, tokenizer)
        ids = prompt_ids(text, tokenizer)
        if len(ids) > limits.max_prompt_tokens:
            return "prompt too long"
    prompt = Prompt(prompt_id(task, example.messages), tuple(ids), text)
    if not ids:
        return "no prompt"
    chosen = answer_of(prompt, follows(example.chosen, messages, tokenizer), tokenizer, limits.max_new_tokens)
    rejected = None
    if example.rejected is not None:
        rejected = answer_of(prompt, follows(example.rejected, messages, tokenizer), tokenizer, limits.max_new_tokens)
        if rejected.ids == chosen.ids:
            return "identical answers"
    return TokenisedExample(prompt, task.shown(example.messages), example.chosen.strip(), chosen, rejected)


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


def read_example(task: TextTask, row: Mapping[str, Any]) -> TextExample:
    example = task.example_of(row)
    answers = (example.chosen, *([] if example.rejected is None else [example.rejected]))
    if not all(isinstance(text, str) for text in (*(content for _, content in example.messages), *answers)):
        raise ValueError("a message has no text")
    return example


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
    """What a message says: its text, or its parts of text.

    Raises:
        ValueError: There is none, or a part is no text.
    """
    content = message["content"]
    if isinstance(content, list) and content and all(part.get("type") == "text" for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError("a message has no text, or more than text")
    return content


def turns_of(conversation: Sequence[Mapping[str, Any]]) -> Messages:
    """A list of messages with role and content as `Messages`.

    Raises:
        ValueError: A message has no text, or the last is not the user's.
    """
    found = tuple((str(message["role"]), text_of(message)) for message in conversation)
    if not found or found[-1][0] != "user":
        raise ValueError("conversation does not end with the user")
    return found
