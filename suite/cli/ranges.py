"""What options may be: types that say their range, and the one check of what was typed against them."""

import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from suite.common.errors import UserError

MOST = 2**31 - 1
"""Of a whole number: what seeds and sizes of arrays can be everywhere."""
LONGEST_NAME = 255
"""Bytes of a file's name."""


@dataclass(frozen=True)
class Range:
    """In a type: says what is wrong with a value, in words, and nothing where it is right."""

    complaint: Callable[[Any], str]


def whole(least: int, most: int = MOST) -> Range:
    """Whole numbers from `least` to `most`."""
    words = f"a whole number of {least} or more" if most == MOST else f"a whole number from {least} to {most}"
    return Range(lambda value: "" if least <= value <= most else f"expected {words}")


def number(least: float, most: float, words: str = "") -> Range:
    """Numbers from `least` to `most`, which are finite."""
    words = words or f"a number from {least:g} to {most:.10g}"
    return Range(lambda value: "" if least <= value <= most else f"expected {words}")


def temperature_complaint(value: float) -> str:
    """What is wrong with a sampling temperature; nothing where it is 0, which is greedy, or one that can be sampled at."""
    return "" if value == 0 or 0.01 <= value <= 100 else "expected 0 (greedy) or a number from 0.01 to 100"


def _names_complaint(text: str) -> str:
    return "" if not text or any(part.strip() for part in text.split(",")) else "expected names with commas between them"


def _name_complaint(text: str) -> str:
    """Of a name that may be a path: if it looks like one, it must be there."""
    if not text.strip(" :,"):
        return "expected a name or a path"
    if text.startswith((".", "/", "~")):
        parts = [text] if "," not in text or _is_there(text) else [part.strip() for part in text.split(",")]
        missing = [part for part in parts if part.startswith((".", "/", "~")) and not _is_there(part)]
        return f"{missing[0]} does not exist" if len(parts) > 1 and missing else "does not exist" if missing else ""
    return ""


def _is_there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError):  # a name that is too long; no such user
        return False


def _command_complaint(text: str) -> str:
    try:
        return "" if shlex.split(text) else "expected a command"
    except ValueError as error:
        return f"no command ({error})"


def _path(text: str) -> Path:
    """What was typed as a path. An empty text, which `Path` would take for the current folder, becomes one that cannot be."""
    try:
        return Path(text or "\0").expanduser()
    except RuntimeError:  # there is no such user, which is said by `_path_complaint`
        return Path(text)


def _path_complaint(path: Path, *, file: bool, folder: bool) -> str:
    """Of a path that is to be made or is there: that it cannot be, or is of the other kind."""
    if path == Path("\0"):
        return "expected a path"
    if path.parts[:1] and path.parts[0].startswith("~"):
        return f"there is no user {path.parts[0][1:]}"
    if any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in path.parts):
        return f"a name in it has more than {LONGEST_NAME} bytes"
    try:
        if not folder and path.is_dir():
            return "is a folder, and a file is meant"
        nearest = next((place for place in (path, *path.parents) if place.exists()), None)
        blocked = nearest is not None and not nearest.is_dir() and not (file and nearest == path)
    except OSError:  # no permission to look: whoever opens it will say so
        return ""
    if not blocked:
        return ""
    return "is a file, and a folder is meant" if nearest == path else f"{nearest} is a file, and a folder is meant"


def _path_range(*, file: bool, folder: bool) -> Range:
    return Range(functools.partial(_path_complaint, file=file, folder=folder))


AS_PATH: Any = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1, metavar="PATH", instance_from_str=lambda words: _path(words[0]),
    is_instance=lambda value: isinstance(value, Path), str_from_instance=lambda path: [str(path)],
)  # fmt: skip
Count = Annotated[int, whole(1)]
CountOrNone = Annotated[int, whole(0)]
Seed = Annotated[int, whole(0)]
Workers = Annotated[int, whole(0, 1024)]
Port = Annotated[int, whole(0, 65535)]
"""Of an address; 0 is any that is free."""
Rank = Annotated[int, whole(0, 4096)]
"""Of an adapter; 0 is none."""
Temperature = Annotated[float, Range(temperature_complaint)]
Share = Annotated[float, number(0, 0.5 - 1e-9, "a share from 0 to below 0.5")]
"""Of labels that are turned."""
Nats = Annotated[float, number(0, 1e6)]
Dollars = Annotated[float, number(0, 1e9)]
Rate = Annotated[float, number(1e-12, 1)]
"""A learning rate."""
Minutes = Annotated[float, number(0, 1e6)]
Names = Annotated[str, Range(_names_complaint)]
"""Names with commas between them; empty: the default."""
Name = Annotated[str, Range(_name_complaint)]
"""Of a model or of data: a path, or a name of the Hub or of a module."""
CommandLine = Annotated[str, Range(_command_complaint)]
Folder = Annotated[Path, AS_PATH, _path_range(file=False, folder=True)]
File = Annotated[Path, AS_PATH, _path_range(file=True, folder=False)]
Place = Annotated[Path, AS_PATH, _path_range(file=True, folder=True)]
"""Of a file or of a folder."""


def check_words(words: Sequence[str]) -> None:
    """Raise a UserError for what was typed if it is no text: it is written into pages, which are."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise UserError(f"{word!r}: not in UTF-8; type or paste it as UTF-8 text, and rename a file that is called so")


def in_range(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose options are held against the ranges of their types before it begins."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **keywords: Any) -> int:
        check_options(command, inspect.signature(command).bind(*arguments, **keywords).arguments)
        return command(*arguments, **keywords)

    return wrapped


def check_options(of: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise a UserError that names the option for the first value that its type does not allow. Defaults are allowed.

    Args:
        of: A function, or the dataclass of a command's options.
        given: Its arguments by name; one that is a dataclass is checked likewise.
    """
    parameters = inspect.signature(of).parameters
    for name, hint in get_type_hints(of, include_extras=True).items():
        if name not in given or given[name] == parameters[name].default:
            continue
        value = given[name]
        if is_dataclass(value):
            check_options(type(value), vars(value))
        for item in value if isinstance(value, tuple) else (value,):
            for found in _ranges(hint) if item is not None else ():
                if words := found.complaint(item):
                    raise UserError(f"{_typed(name, hint, item)}: {words}")


def _typed(name: str, hint: Any, value: Any) -> str:
    """An option with its value, as it was typed or nearly so."""
    text = "''" if value == Path("\0") else repr(value) if isinstance(value, str) else str(value)
    positional = tyro.conf.Positional in getattr(hint, "__metadata__", ())
    return text if positional else f"--{name.replace('_', '-')} {text}"


def _ranges(hint: Any) -> Iterator[Range]:
    """Those in a type, and in the types that it is made of."""
    for part in get_args(hint):
        if isinstance(part, Range):
            yield part
        elif not isinstance(part, str):
            yield from _ranges(part)
