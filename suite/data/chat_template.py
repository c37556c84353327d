"""Chat templates: prompt and answer as the template itself writes the whole conversation, and the tokens that end a turn."""

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from suite.common.errors import UserError

SENTINEL = "answer"
SECONDS = 10
"""Of processor time that a template may take for a short conversation."""
MOST_MEMORY, MOST_CHARACTERS = 2**29, 100_000
"""Bytes that it may take for it, and characters that it may write."""
SOUND: set[str] = set()
"""Templates that were tried in this process."""
STATM = Path("/proc/self/statm")
"""Memory of this process, in pages, where there is such a file."""
TRIAL = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Good."}]


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer where it stands in a conversation: after `prompt` comes `text`, and after it what ends the turn."""

    prompt: str  # what a policy continues
    text: str  # the answer, with what the template writes before it
    end: str = ""  # what the template writes after it; empty where there is no template
    rendered: bool = False  # a template wrote it


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, to_be_answered: bool) -> str:
    """The text of a conversation."""
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=to_be_answered)


def turn_of(tokenizer: Any, messages: Sequence[Mapping[str, str]], answer: str) -> Turn:
    """The last turn of a conversation that `answer` answers, without blanks at its ends.

    Raises:
        ValueError: The template writes the prompt otherwise once it is answered, or changes the answer.
    """
    prompt, said = render(tokenizer, messages, to_be_answered=True), answer.strip()
    before, after = _around(tokenizer, messages, prompt)
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": said}], to_be_answered=False)
    if whole == f"{prompt}{said}{after}":  # the answer has itself what is written before others: empty thoughts
        before = ""
    if whole != f"{prompt}{before}{said}{after}":
        raise ValueError("the chat template changes the answer")
    return Turn(prompt, before + said, after, rendered=True)


def _around(tokenizer: Any, messages: Sequence[Mapping[str, str]], prompt: str) -> tuple[str, str]:
    """What the template writes before and after an answer."""
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": SENTINEL}], to_be_answered=False)
    if not whole.startswith(prompt):
        raise ValueError("the chat template writes the prompt otherwise once it is answered")
    before, found, after = whole[len(prompt) :].rpartition(SENTINEL)
    if not found:
        raise ValueError("the chat template leaves the answer out")
    return before, after


def turn_end(tokenizer: Any) -> int | None:
    """The token by which the chat template ends an answer; None without a template, or where it writes no special token."""
    return _turn_end(tokenizer, repr(template)) if (template := getattr(tokenizer, "chat_template", None)) else None


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, template: str) -> int | None:
    question = TRIAL[:1]
    try:
        _, after = _around(tokenizer, question, render(tokenizer, question, to_be_answered=True))
    except ValueError:  # rows in which it is used are refused by name
        return None
    special = special_ids(tokenizer)
    return next((i for i in tokenizer(after, add_special_tokens=False)["input_ids"] if i in special), None)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of tokens that stand for no text."""
    return {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}


def end_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Every token that ends an answer, EOS first: the tokenizer's, the chat template's, those of the generation settings."""
    given = getattr(generation_config, "eos_token_id", None)
    special = special_ids(tokenizer)  # others are defaults of a configuration that knows no tokenizer
    named = [i for i in (given if isinstance(given, (list, tuple)) else [given]) if i in special]
    found = dict.fromkeys(i for i in (tokenizer.eos_token_id, turn_end(tokenizer), *named) if i is not None)
    return tuple(found)


def check_template(tokenizer: Any, name: str) -> None:
    """Try the chat template on a short conversation, once, in a process of its own that is stopped if it takes too much.

    Raises:
        UserError: The template fails, loops, or grows without end; `name` says whose it is.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template or repr(template) in SOUND:
        return
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # nothing but the template runs here, and it ends here whatever happens
        said = "it takes too much time or memory"
        try:
            _limit_this_process()
            if (length := len(render(tokenizer, TRIAL, to_be_answered=True))) > MOST_CHARACTERS:
                raise ValueError(f"it writes {length:,} characters for three short turns")
            render(tokenizer, TRIAL[:2], to_be_answered=False)
            said = ""
        except MemoryError:
            pass
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"[:200]
        finally:
            os.write(writer, said.encode("utf-8", "replace") or b"\0")
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 6 * SECONDS)
    answered = os.read(reader, 4096) if ready else b""  # nothing: it was stopped
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if answered != b"\0":
        reason = answered.decode() or "it takes too much time or memory"
        raise UserError(f"{name}: the chat template cannot be used ({reason}); mend chat_template, or remove it")
    SOUND.add(repr(template))


def _limit_this_process() -> None:
    if STATM.exists():
        most = int(STATM.read_text().split()[0]) * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    spent = int(time.process_time()) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (spent, spent))
