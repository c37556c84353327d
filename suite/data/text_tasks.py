"""Tasks made of texts: a conversation to continue, answers that people wrote or preferred, and how both become tokens."""

from __future__ import annotations

import hashlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError

from suite.data import invented
from suite.data.preference_data import Completion, Prompt
from suite.data.preference_tables import TextPair, hub_name, load_splits, paired, unreadable
from suite.errors import UserError, did_you_mean

TASKS = ("hh_dialogue", "tldr_summarization", "cnn_dm_transfer", "own_data")
INVENTED = "invented"
"""The source that is made up on the spot: for trying the pipeline, never for results."""
Part = Literal["methods", "judge", "train", "validation", "test"]
"""Who reads: methods and judge a half each of what is no test prompt; or all methods, less an eighth for validation."""
TEST_SHARE, SHARES = 2, 10  # of prompts, in tenths, where the source has no test split
VALIDATION_SHARE = 8  # one in so many
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


def read_rows(task: TextTask, source: str, *, rows: int | None = None) -> dict[str, Iterable[Mapping[str, Any]]]:
    """Split → rows of a Hub name, a `save_to_disk` folder, a local file or folder, or of `INVENTED`.

    Args:
        task: Whose data these are, for the message.
        source: Where.
        rows: At most so many per split; from the Hub they are streamed, and no more is fetched.

    Raises:
        UserError: Unreadable; says which data set and how to get it offline.
    """
    if source == INVENTED:
        return {"train": invented.ROWS[task.name]()}
    if rows is not None and not Path(source).expanduser().exists():
        import datasets

        try:
            streamed = datasets.load_dataset(*hub_name(source), streaming=True)
            taken = {name: datasets.Dataset.from_list(list(table.take(rows))) for name, table in streamed.items()}
            return {name: paired(table, f"{source} [{name}]") for name, table in standard_names(taken).items()}
        except UserError:
            raise
        except Exception as error:  # datasets raises many kinds: connection, missing repository
            raise UserError(f"{task.name}: {unreadable(source, error)}") from error
    try:
        splits = {name: paired(table, f"{source} [{name}]") for name, table in standard_names(load_splits(source)).items()}
    except UserError as error:
        raise UserError(f"{task.name}: {error}") from error
    return {name: table if rows is None else table.select(range(min(rows, len(table)))) for name, table in splits.items()}


def standard_names(splits: Mapping[str, Any]) -> dict[str, Any]:
    """`train_prefs` and `test_prefs` as `train` and `test` if none have these names; of several, the preferences."""
    found = dict(splits)
    for role in ("train", "test"):
        others = [name for name in found if name.startswith(f"{role}_")]
        others = [name for name in others if "pref" in name] or others
        if role not in found and len(others) == 1:
            found[role] = found.pop(others[0])
    return found


def read_part(
    task: TextTask,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    part: Part,
    count: int,
    tokenizer: Any,
    limits: Limits,
    *,
    single_turn: bool = False,
    tests: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
) -> tuple[list[TokenisedExample], dict[str, int]]:
    """The first `count` usable examples of a part, in an order that is a hash of the prompt.

    Test prompts are those of the split "test" where there is one, else a fifth by the hash; those of the split "train" (of all
    others where there is none of that name) are halved between the methods and the judge, by the hash too, or divided into
    "train" and "validation": no prompt is in two parts of one division. Of a test prompt one example is kept.

    Args:
        task: How rows are read.
        splits: From `read_rows`.
        part: Which.
        count: How many examples.
        tokenizer: The policy's.
        limits: See `Limits`.
        single_turn: Leave out test conversations of several turns.
        tests: The data whose test prompts are answered, if that is not `splits`; they are nobody's to learn from.

    Returns:
        The examples, and counts: `rows`, `used`, and what was left out, by reason.

    Raises:
        UserError: Nothing usable is left.
    """
    counts: Counter[str] = Counter()
    found = _of_part(task, splits, part, tests, counts)
    if single_turn and part == "test":
        single = [pair for pair in found if len(pair[1].messages) == 1]
        counts["several turns"], found = len(found) - len(single), single
    kept: list[TokenisedExample] = []
    seen: set[str] = set()
    for identifier, example in sorted(found, key=lambda pair: pair[0]):
        if len(kept) == count:
            counts["not needed"] += 1
        elif part == "test" and identifier in seen:
            counts["prompt seen before"] += 1
        elif isinstance(made := tokenise(task, example, tokenizer, limits), str):
            counts[made] += 1
        else:
            seen.add(identifier)
            kept.append(made)
    if not kept:
        raise UserError(
            f"{task.name}: nothing usable for {part} ({dict(counts)}); use more rows, name the splits train and test, or raise "
            "the length limits"
        )
    return kept, {**counts, "used": len(kept)}


def _of_part(
    task: TextTask,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    part: Part,
    tests: Mapping[str, Iterable[Mapping[str, Any]]] | None,
    counts: Counter[str],
) -> list[tuple[str, TextExample]]:
    """The examples of a part with their prompts' ids; `counts` is filled with what was read and left out."""
    answered = splits if tests is None else tests
    test_ids: set[str] | None = None
    if "test" in answered:
        test_ids = {prompt_id(task, example.messages) for example in _examples(task, answered["test"], Counter())}
    train = {"train"} & splits.keys() or splits.keys() - {"test"}
    wanted = {"test"} if part == "test" and "test" in splits else train
    found = []
    for name in sorted(wanted):
        for example in _examples(task, splits[name], counts):
            identifier = prompt_id(task, example.messages)
            is_test = is_test_prompt(identifier) if test_ids is None else identifier in test_ids
            if part in (("test",) if is_test else (half_of(identifier), validation_or_train(identifier))):
                found.append((identifier, example))
            else:
                counts["of another part"] += 1
    return found


def is_test_prompt(identifier: str) -> bool:
    """Whether a prompt is a test prompt, by its id, where no split says so."""
    return int(identifier.rpartition("-")[2], 16) % SHARES < TEST_SHARE


def half_of(identifier: str) -> Part:
    """To whom a prompt that is no test prompt belongs, by its id."""
    return "methods" if int(identifier.rpartition("-")[2], 16) // SHARES % 2 else "judge"


def validation_or_train(identifier: str) -> Part:
    """As `half_of`, in the other division."""
    return "train" if int(identifier.rpartition("-")[2], 16) // SHARES % VALIDATION_SHARE else "validation"


def prompt_id(task: TextTask, messages: Messages) -> str:
    """Task and a hash of the plain prompt, whatever its white space: data sets of the same prompts differ in it."""
    return f"{task.name}-{hashlib.sha256(' '.join(task.plain(messages).split()).encode()).hexdigest()[:12]}"


def _examples(task: TextTask, rows: Iterable[Mapping[str, Any]], counts: Counter[str]) -> Iterator[TextExample]:
    for row in rows:
        counts["rows"] += 1
        try:
            example = _example(task, row)
        except BAD_ROW as error:
            counts[_why(error)] += 1
            continue
        if not all(content.strip() or role == AS_IT_IS for role, content in example.messages):
            counts["empty message"] += 1
        elif not example.chosen.strip() or (example.rejected is not None and not example.rejected.strip()):
            counts["empty answer"] += 1
        else:
            yield example


def tokenise(task: TextTask, example: TextExample, tokenizer: Any, limits: Limits) -> TokenisedExample | str:
    """The example as tokens, prompt and answers joined as ids; or why it cannot be used."""
    messages = example.messages
    try:
        text = task.prompt_text(messages, tokenizer)
    except TemplateError as error:
        return _why(error)
    ids = _ids(text, tokenizer)
    if len(ids) > limits.max_prompt_tokens:
        if not task.cut:
            return "prompt too long"
        messages = _shortened(messages, len(ids) - limits.max_prompt_tokens, tokenizer)
        text = task.prompt_text(messages, tokenizer)
        ids = _ids(text, tokenizer)
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


def text_pairs(task: TextTask, splits: Mapping[str, Iterable[Mapping[str, Any]]], tokenizer: Any) -> list[TextPair]:
    """Every row as `suite.data.doctor` reads it: the texts that a policy will see, or what is wrong with the row."""
    pairs = []
    for split, rows in splits.items():
        for index, row in enumerate(rows):
            try:
                example = _example(task, row)
                if example.rejected is None:
                    raise ValueError("rejected is missing")
                text = task.prompt_text(example.messages, tokenizer)
            except (*BAD_ROW, TemplateError) as error:
                pairs.append(TextPair(index, split, "", "", "", _why(error)))
                continue
            chosen, rejected = (follows(answer, example.messages, tokenizer) for answer in (example.chosen, example.rejected))
            pairs.append(TextPair(index, split, text, chosen, rejected))
    return pairs


def _example(task: TextTask, row: Mapping[str, Any]) -> TextExample:
    example = task.example_of(row)
    answers = (example.chosen, *([] if example.rejected is None else [example.rejected]))
    if not all(isinstance(text, str) for text in (*(content for _, content in example.messages), *answers)):
        raise ValueError("a message has no text")
    return example


def _why(error: Exception) -> str:
    """What is wrong with a row, in one line."""
    if isinstance(error, TemplateError):
        return f"the chat template refuses it: {' '.join(str(error).split())}"
    return str(error) if type(error) is ValueError else f"not in a known format ({type(error).__name__}: {error})"


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _shortened(messages: Messages, excess: int, tokenizer: Any) -> Messages:
    """The last message without its last tokens, a few more than `excess` since cut text may tokenise differently."""
    role, content = messages[-1]
    ids = _ids(content, tokenizer)
    kept = tokenizer.decode(ids[: max(1, len(ids) - excess - 2)], clean_up_tokenization_spaces=False)
    return (*messages[:-1], (role, kept))


def turns_of(conversation: Sequence[Mapping[str, Any]]) -> Messages:
    """A list of messages with role and content as `Messages`.

    Raises:
        ValueError: It does not end with the user's message.
    """
    found = tuple((str(message["role"]), str(message["content"])) for message in conversation)
    if not found or found[-1][0] != "user":
        raise ValueError("conversation does not end with the user")
    return found
