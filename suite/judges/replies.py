"""What a server sent, read without trust: a reply, or what it says is wrong. Nothing is taken for what it should be."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.judges.judging import clean, shown

CUT = ("length", "content_filter")
"""Why a reply ends before its last line."""


class NoCompletion(Exception):
    """What came does not have the form of a chat completion."""


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    text: str  # empty where it did not
    refusal: str
    whole: bool  # it ended by itself
    served: str  # what the server says answered; empty if it does not
    usage: Mapping[str, Any]  # as it came


@dataclass(frozen=True)
class ServerError:
    """What a server says is wrong, each in one line; empty where it does not say."""

    message: str
    code: str
    param: str


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds. Raises NoCompletion if it holds none."""
    try:
        found = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) < 20 else math.inf)
    except (ValueError, RecursionError):
        raise NoCompletion("the reply is not a chat completion") from None
    if not isinstance(found, dict):
        raise NoCompletion("the reply is not a chat completion")
    return found


def read_reply(found: Mapping[str, Any]) -> Reply:
    """The first choice of a chat completion. Raises NoCompletion if it is none."""
    try:
        choice, usage = found["choices"][0], found.get("usage")
        ended, refusal, text = (
            choice.get("finish_reason"),
            choice["message"].get("refusal"),
            _text(choice["message"].get("content")),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NoCompletion("the reply has no choices of the form of a chat completion") from None
    if ended == "error":
        raise NoCompletion("the server broke the reply off")
    served = " ".join(name for name in (found.get("model"), found.get("system_fingerprint")) if isinstance(name, str))
    return Reply(
        scrub(clean(text)), scrub(clean(refusal)) if isinstance(refusal, str) else "", ended not in CUT, shown(scrub(served)),
        usage if isinstance(usage, dict) else {},
    )  # fmt: skip


def _text(content: Any) -> str:
    """Text, nothing, or parts, of which those that are text are joined."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError
    spoken = [part for part in content if isinstance(part, str) or part.get("type", "text") in ("text", "output_text")]
    return "".join(part if isinstance(part, str) else part["text"] for part in spoken)


def read_error(found: Any) -> ServerError:
    """What is wrong, from the body of an error, or the text of one that holds no object."""
    error = found.get("error") or found if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return ServerError(_words(error), "", "")
    message = next((error[name] for name in ("message", "detail") if error.get(name)), "")
    code = next((error[name] for name in ("code", "type", "status") if error.get(name)), "")
    return ServerError(_words(message), _words(code), _words(error.get("param") or ""))


def _words(value: Any) -> str:
    try:
        return shown(scrub(value if isinstance(value, str) else json.dumps(value)), 300)
    except (ValueError, RecursionError):
        return ""


def tokens(said: Any, *, least: int, most: int) -> int:
    """A number of tokens as a server reports it; where that is impossible, the most there can be."""
    possible = isinstance(said, int | float) and not isinstance(said, bool) and least <= said <= most
    return int(said) if possible else most


def scrub(text: str) -> str:
    """`text` without the key, whoever put it there; keys of local servers may be any short word and are no secret."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return text.replace(key, "[key]") if len(key) >= 8 else text
