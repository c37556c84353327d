"""Other people's preference data: every format that TRL documents, from a file, a folder or the Hub, as plain text pairs.

Standard or conversational, with an explicit prompt or one that chosen and rejected share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError

from suite.errors import UserError

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
LAST_TURN = "\n\nAssistant:"
"""Where a dialogue written as one string splits: after its last occurrence (the format of Anthropic's HH)."""

Format = Literal["explicit prompt", "implicit prompt", "explicit prompt, conversations", "implicit prompt, conversations"]


@dataclass(frozen=True, slots=True)
class TextPair:
    """One row: the text a policy continues, and what was preferred to what.

    Attributes:
        row: Number in its split, from 0.
        split: Name of the split.
        prompt: Shared text, with the chat template applied if it was a conversation.
        chosen, rejected: What follows it.
        fault: Why the row cannot be used, empty if it can; then the texts are empty too.
        scores: (chosen, rejected) where the data give them.
    """

    row: int
    split: str
    prompt: str
    chosen: str
    rejected: str
    fault: str = ""
    scores: tuple[float, float] | None = None


def load_splits(source: str) -> dict[str, Any]:
    """Split → `datasets.Dataset` of a local file, a folder of files or of `save_to_disk`, or a Hub name (`name:configuration`).

    Raises:
        UserError: Nothing there, unreadable, or the Hub cannot be reached; says what to do.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(source).expanduser()
    try:
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            found = datasets.load_from_disk(str(path))
        elif path.is_dir():
            files = _files_by_split(path)
            kind = _kind(Path(next(iter(files.values()))[0]))
            found = datasets.load_dataset(kind, data_files=files)
        elif path.is_file():
            if not (kind := _kind(path)):
                raise UserError(f"{path}: unknown ending; use one of {', '.join(LOADERS)}, gzipped or not")
            found = datasets.load_dataset(kind, data_files=str(path))
        elif source.startswith((".", "/", "~")):
            raise UserError(f"{source}: does not exist")
        else:
            found = datasets.load_dataset(*hub_name(source))
    except UserError:
        raise
    except Exception as error:  # datasets raises many kinds: syntax, connection, missing repository
        raise unreadable(source, error) from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def paired(table: Any, where: str) -> Any:
    """A table of labelled completions (`prompt`, `completion`, `label`) as pairs: the first good one of a prompt with its first
    bad one, and so on; any other table as it is.

    Raises:
        UserError: A label is neither true nor false (1 nor 0), or no prompt has both a good and a bad completion.
    """
    import datasets

    if not {"prompt", "completion", "label"} <= set(table.column_names) or "chosen" in table.column_names:
        return table
    if odd := [label for label in table["label"] if label not in (True, False)]:
        raise UserError(f"{where}: label {odd[0]!r}: expected true or false (1 or 0)")
    sides: dict[str, tuple[Any, list[Any], list[Any]]] = {}
    for row in table:
        entry = sides.setdefault(json.dumps(row["prompt"]), (row["prompt"], [], []))
        entry[1 if row["label"] else 2].append(row["completion"])
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt, good, bad in sides.values()
        for chosen, rejected in zip(good, bad, strict=False)
    ]
    if len(table) and not rows:
        raise UserError(f"{where}: labelled completions, but no prompt has both a good and a bad one; pairs cannot be made")
    return datasets.Dataset.from_list(rows) if rows else table


def hub_name(source: str) -> tuple[str, ...]:
    """`owner/name`, or `owner/name:configuration` of a data set that has several, as arguments of `datasets.load_dataset`."""
    return tuple(part for part in source.partition(":")[::2] if part)


def unreadable(source: str, error: Exception) -> UserError:
    """Why a data set could not be read, in one line, with what to do offline."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    advice = "" if Path(source).expanduser().exists() else (
        f". If it is a Hub name and this machine is offline: where there is a network, run hf download "
        f"{hub_name(source)[0]} --repo-type dataset --local-dir pairs; copy the folder here and pass its path"
    )  # fmt: skip
    return UserError(f"preference data {source!r} could not be read ({type(error).__name__}: {reason}){advice}")


def _files_by_split(folder: Path) -> dict[str, list[str]]:
    """Split → files of a folder, or of the one folder in it that has any: `train-00000-of-00002.parquet` is of `train`.

    Raises:
        UserError: None there, or several folders of them.
    """
    files: dict[str, list[str]] = {}
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and any(map(_kind, place.iterdir()))]
    if len(inside) > 1 and not any(map(_kind, folder.iterdir())):
        raise UserError(f"{folder}: several data sets in it ({', '.join(place.name for place in inside)}); pass one of them")
    for place in (folder, *inside):
        for file in sorted(place.iterdir()) if not files else ():
            if _kind(file):
                files.setdefault(re.split(r"[^a-zA-Z_]", file.name)[0] or "train", []).append(str(file))
    if not files:
        raise UserError(f"{folder}: no {', '.join(LOADERS)} file in it")
    return files


def _kind(file: Path) -> str | None:
    """Which loader of `datasets` reads the file."""
    suffixes = [suffix for suffix in file.suffixes if suffix != ".gz"]
    return LOADERS.get(suffixes[-1]) if suffixes and file.is_file() else None


def detect_format(columns: Sequence[str], first: Mapping[str, Any], where: str) -> Format:
    """Which of TRL's preference formats a table has, by its columns and its first row.

    Raises:
        UserError: It is no preference table; names what is missing.
    """
    missing = {"chosen", "rejected"} - set(columns)
    if missing:
        raise UserError(
            f"{where}: no column {' and '.join(sorted(missing))} (it has {', '.join(columns)}); expected chosen and rejected, "
            f"with or without prompt"
        )
    conversation = isinstance(first["chosen"], list)
    if "prompt" in columns:
        return "explicit prompt, conversations" if conversation else "explicit prompt"
    return "implicit prompt, conversations" if conversation else "implicit prompt"


def read_pairs(source: str, tokenizer: Any = None) -> tuple[list[TextPair], Format]:
    """All rows of all splits as text. A row that makes no pair is kept, with its `fault`.

    Args:
        source: See `load_splits`.
        tokenizer: With a chat template, if the data are conversations.

    Raises:
        UserError: As `load_splits` and `detect_format`; no rows; conversations without a chat template.
    """
    splits = load_splits(source)
    pairs: list[TextPair] = []
    form: Format | None = None
    for split, whole in splits.items():
        if not len(whole):
            continue
        table = paired(whole, f"{source} [{split}]")
        first = next((row for row in table if row.get("chosen") is not None), table[0])
        form = detect_format(table.column_names, first, f"{source} [{split}]")
        if form.endswith("conversations") and getattr(tokenizer, "chat_template", None) is None:
            raise UserError(
                f"{source}: these are conversations, and the tokenizer has no chat template; pass --tokenizer with one that has"
            )
        for index, row in enumerate(table):
            pairs.append(_pair(row, index, split, form, tokenizer))
    if form is None:
        raise UserError(f"{source}: no rows")
    return pairs, form


def _pair(row: Mapping[str, Any], index: int, split: str, form: Format, tokenizer: Any) -> TextPair:
    kind = list if form.endswith("conversations") else str
    for name in ("prompt", "chosen", "rejected") if form.startswith("explicit") else ("chosen", "rejected"):
        value = row[name]
        if not isinstance(value, kind) and not (name == "prompt" and isinstance(value, str)):
            return TextPair(index, split, "", "", "", f"{name} is {type(value).__name__}, not {kind.__name__}")
    try:
        prompt, chosen, rejected = _texts(row, form, tokenizer)
    except (ValueError, LookupError, TypeError, TemplateError) as error:
        return TextPair(index, split, "", "", "", " ".join(str(error).split()) or type(error).__name__)
    scores = row.get("score_chosen"), row.get("score_rejected")
    numbers = all(isinstance(score, (int, float)) for score in scores)
    given = (float(scores[0]), float(scores[1])) if numbers else None  # type: ignore[arg-type]
    return TextPair(index, split, prompt, chosen, rejected, "", given)


def _texts(row: Mapping[str, Any], form: Format, tokenizer: Any) -> tuple[str, str, str]:
    """Prompt, chosen, rejected. Raises ValueError where the two sides do not continue one prompt."""
    if form == "explicit prompt":
        return row["prompt"], row["chosen"], row["rejected"]
    if form == "implicit prompt":
        return split_shared_prompt(row["chosen"], row["rejected"])
    sides = {name: [dict(message) for message in row[name]] for name in ("chosen", "rejected")}
    if form == "implicit prompt, conversations":
        turns = sides["chosen"][:-1]
        if turns != sides["rejected"][:-1]:
            raise ValueError("chosen and rejected differ before their last message")
        sides = {name: messages[-1:] for name, messages in sides.items()}
    else:
        given = row["prompt"]
        turns = [{"role": "user", "content": given}] if isinstance(given, str) else [dict(message) for message in given]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    texts = []
    for messages in sides.values():
        whole = tokenizer.apply_chat_template(turns + messages, tokenize=False)
        if not whole.startswith(prompt):
            raise ValueError("the chat template writes the prompt differently once an answer follows")
        texts.append(whole[len(prompt) :])
    return prompt, texts[0], texts[1]


def split_shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt and the two continuations of texts that share their beginning.

    Dialogues split after the last assistant turn, whose prompts must then be equal; other texts at the last blank of the
    longest common prefix, so that no word is torn.

    Raises:
        ValueError: Dialogues that differ before their last turn.
    """
    at = chosen.rfind(LAST_TURN)
    if at >= 0:
        end = at + len(LAST_TURN)
        if rejected.rfind(LAST_TURN) != at or rejected[:end] != chosen[:end]:
            raise ValueError("chosen and rejected differ before their last assistant turn")
        return chosen[:end], chosen[end:], rejected[end:]
    length = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    if length < max(len(chosen), len(rejected)):
        length = max(chosen.rfind(" ", 0, length), chosen.rfind("\n", 0, length), 0)
    return chosen[:length], chosen[length:], rejected[length:]
