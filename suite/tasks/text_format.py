"""Rows of text data: a conversation to continue, answers that people wrote or preferred, and how both become tokens."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from suite.data.chat_template import Turn, end_ids, render, turn_of
from suite.data.preference_data import Completion, Prompt
from suite.interfaces import Example

BAD_ROW = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
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
    scores: tuple[float, float] | None = field(default=None, compare=False)
    """(chosen, rejected) where the data give them; NaN for what is no number."""
    how: str = field(default="", compare=False)
    """Which columns these are, in words."""
    guessed: bool = field(default=False, compare=False)
    """No column is the prompt: it is what two texts have in common."""
    rating: float | None = field(default=None, compare=False)
    """How much better the preferred answer is (`suite.data.ratings`); NaN for what is no rating."""
    domain: str = field(default="", compare=False)
    """What kind of preference it is."""


@dataclass(frozen=True)
class TextFormat:
    """How rows of a data set are read: what differs between summaries and dialogues.

    Attributes:
        name: Of the task, in messages and in the ids of prompts.
        example_of: A row in any of the task's known formats → example; ValueError says what is wrong with a row.
        plain: Messages → the text that a model without a chat template continues.
        instruction: Put before the last message for chat models; empty if the message says itself what is wanted.
        stop: Where the continuation of a model that was not trained on the task ends.
        same: Messages → the text that decides the part a prompt is in; `plain` if None.
        cut: Shorten the last message where the prompt is too long, instead of leaving the prompt out.
    """

    name: str
    example_of: Callable[[Mapping[str, Any]], TextExample]
    plain: Callable[[Messages], str]
    instruction: str = ""
    stop: tuple[str, ...] = ()
    same: Callable[[Messages], str] | None = None
    cut: bool = False

    def read(self, row: Mapping[str, Any]) -> TextExample:
        """A row as an example of which all texts are texts; raises one of `BAD_ROW` where it is none."""
        example = self.example_of(row)
        rejected = "" if example.rejected is None else example.rejected
        texts = [example.chosen, rejected, *(content for _, content in example.messages)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a message has no text")
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            raise ValueError("a text has half of a surrogate pair, which UTF-8 cannot write")
        return example

    def prompt_id(self, messages: Messages) -> str:
        """Task and a hash of the prompt, whatever its white space: data sets of the same prompts differ in it."""
        return self._named(self.plain(messages))

    def group_of(self, messages: Messages) -> str:
        """As `prompt_id`, and the same for prompts that ask the same thing in another layout: they are in one part."""
        return self._named((self.same or self.plain)(messages))

    def _named(self, text: str) -> str:
        return f"{self.name}-{hashlib.sha256(' '.join(text.split()).encode()).hexdigest()[:12]}"

    def shown(self, messages: Messages) -> str:
        """What a judge is shown as the prompt."""
        if len(messages) == 1:
            return messages[0][1]
        return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in messages)

    def prompt_text(self, messages: Messages, tokenizer: Any) -> str:
        """What a policy continues: through the chat template if there is one, else `plain`."""
        if not has_template(messages, tokenizer):
            return self.plain(messages)
        return render(tokenizer, self._turns(messages), to_be_answered=True)

    def turn(self, messages: Messages, answer: str, tokenizer: Any) -> Turn:
        """How an answer stands after its prompt: as the chat template writes it; without one as it is after a text, and after a
        blank in a conversation. Raises ValueError or TemplateError where the template does not take it.
        """
        if has_template(messages, tokenizer):
            return turn_of(tokenizer, self._turns(messages), answer)
        text = answer if messages[0][0] == AS_IT_IS else f" {answer.strip()}"
        return Turn(self.plain(messages), text)

    def _turns(self, messages: Messages) -> list[dict[str, str]]:
        role, last = messages[-1]
        turns = [*messages[:-1], (role, f"{self.instruction}\n\n{last}" if self.instruction else last)]
        return [{"role": role, "content": content} for role, content in turns]


def has_template(messages: Messages, tokenizer: Any) -> bool:
    """Whether a conversation goes through the tokenizer's chat template; a text never does."""
    return bool(getattr(tokenizer, "chat_template", None)) and messages[0][0] != AS_IT_IS


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
    encode = _ids if has_template(messages, tokenizer) else prompt_ids  # a template writes BOS itself, or wants none
    ids = encode(text, tokenizer)
    if len(ids) > limits.max_prompt_tokens and form.cut:
        messages = _shortened(messages, len(ids) - limits.max_prompt_tokens, tokenizer)
        text = form.prompt_text(messages, tokenizer)
        ids = encode(text, tokenizer)
    if not ids or len(ids) > limits.max_prompt_tokens:
        return "prompt too long" if ids else "no prompt"
    prompt = Prompt(form.prompt_id(example.messages), tuple(ids), text)
    try:
        chosen, rejected = (
            None
            if answer is None
            else answer_of(prompt, form.turn(messages, answer, tokenizer), tokenizer, limits.max_new_tokens)
            for answer in (example.chosen, example.rejected)
        )
    except (ValueError, TemplateError) as error:
        return why(error)
    if chosen and rejected and rejected.ids == chosen.ids:
        return "identical answers"
    rated = None if example.rating is None or math.isnan(example.rating) else int(example.rating)
    return Example(prompt, form.shown(example.messages), example.chosen.strip(), chosen, rejected, rated, example.domain)


def answer_of(prompt: Prompt, turn: Turn, tokenizer: Any, max_new_tokens: int) -> Completion:
    """An answer written by someone, with the token that ends it; cut to `max_new_tokens`, without one, where it is longer.

    Its text is what the tokens spell before their end, as that of a sampled completion is. Raises ValueError where the tokens
    of the prompt are others once the answer stands behind them.
    """
    ids = _after(prompt, replace(turn, end=""), tokenizer)
    whole, ends = _after(prompt, turn, tokenizer) if turn.end else [], end_ids(tokenizer)
    last = next((place for place in range(len(ids), len(whole)) if whole[place] in ends), None)
    ids = [*ids, tokenizer.eos_token_id] if last is None else whole[: last + 1]
    truncated = len(ids) > max_new_tokens
    ids = ids[:max_new_tokens] if truncated else ids
    text = tokenizer.decode(ids if truncated else ids[:-1], clean_up_tokenization_spaces=False)
    return Completion(prompt, tuple(ids), text, truncated)


def _after(prompt: Prompt, turn: Turn, tokenizer: Any) -> list[int]:
    """The tokens of a turn after those of its prompt: as they stand in the whole conversation; where a text merges with its
    prompt, as they stand after a new line.
    """
    before = list(prompt.ids)
    encode = _ids if turn.rendered else prompt_ids
    whole = encode(turn.prompt + turn.text + turn.end, tokenizer)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    if turn.rendered:
        raise ValueError("prompt and answer share a token where the chat template joins them")
    line, after = _ids("\n", tokenizer), _ids(f"\n{turn.text}", tokenizer)
    return after[len(line) :] if after[: len(line)] == line else _ids(turn.text, tokenizer)


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
