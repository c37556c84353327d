"""Other people's data: tables from a file, a folder or the Hub; labelled completions paired, shared prompts split."""

import gzip
import json
import re
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from suite.common.errors import UserError

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
LAST_TURN = "\n\nAssistant:"
"""Where a dialogue written as one string splits: after its last occurrence (the format of Anthropic's HH)."""
NO_DATA = {"dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that describe a data set."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """One row: the text a policy continues, and what was preferred to what."""

    row: int  # number in its split, from 0
    split: str
    prompt: str  # shared text, with the chat template applied if it was a conversation
    chosen: str  # what follows it
    rejected: str
    fault: str = ""  # why the row cannot be used, and then the texts are empty; empty if it can
    scores: tuple[float, float] | None = None  # (chosen, rejected) where the data give them
    guessed: bool = False  # there is no prompt column, and the prompt is what two texts have in common


def load_splits(source: str, *, rows: int | None = None) -> dict[str, Any]:
    """Split → `datasets.Dataset` of a local file, a folder of files or of `save_to_disk`, or a Hub name (`name:configuration`).

    Several sources, with commas between, are put together split by split. From the Hub a data set's first `rows` rows of every
    split are streamed, and no more is fetched.

    Raises:
        UserError: Nothing there, unreadable, or the Hub cannot be reached; says what to do.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(source).expanduser()
    if "," in source and not path.exists():
        parts = [load_splits(part.strip()) for part in source.split(",")]
        return {
            name: datasets.concatenate_datasets([part[name] for part in parts if name in part])
            for name in dict.fromkeys(name for part in parts for name in part)
        }
    try:
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            found = datasets.load_from_disk(str(path))
        elif path.is_dir():
            found = _load_files(_files_by_split(path))
        elif path.is_file():
            if not _kind(path):
                raise UserError(f"{path}: unknown ending; use one of {', '.join(LOADERS)}, gzipped or not")
            found = _load_files({"train": [str(path)]})
        elif source.startswith((".", "/", "~")):
            raise UserError(f"{source}: does not exist")
        elif rows is None:
            found = datasets.load_dataset(*_hub_name(source))
        else:
            streamed = datasets.load_dataset(*_hub_name(source), streaming=True)
            first = {name: datasets.Dataset.from_list(list(table.take(rows))) for name, table in streamed.items()}
            found = datasets.DatasetDict(first)
    except UserError:
        raise
    except Exception as error:  # datasets raises many kinds: syntax, connection, missing repository
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # what `datasets` wraps says more
        reason = str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__
        advice = "" if path.exists() else (
            f". If it is a Hub name and this machine is offline: where there is a network, run hf download "
            f"{_hub_name(source)[0]} --repo-type dataset --local-dir pairs; copy the folder here and pass its path"
        )  # fmt: skip
        raise UserError(f"preference data {source!r} could not be read ({type(cause).__name__}: {reason}){advice}") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _load_files(files: dict[str, list[str]]) -> Any:
    """Split → files, by the loader of `datasets` for their kind; several kinds, no text and no UTF-8 are a `UserError`."""
    import datasets

    names = [Path(name) for some in files.values() for name in some]
    kinds = {_kind(name) for name in names}
    if len(kinds) > 1:
        raise UserError(f"{names[0].parent}: files of several kinds ({', '.join(file.name for file in names)}); keep one kind")
    (kind,) = kinds
    for file in names if kind != "parquet" else ():
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            number = 0
            for number, line in enumerate(lines, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    raise UserError(f"{file}, line {number}: not in UTF-8 ({error.reason}); save the file as UTF-8") from error
        if not number:
            raise UserError(f"{file}: the file is empty")
    options = {"keep_default_na": False, "na_values": [""]} if kind == "csv" else {}  # "None" may be an answer
    return datasets.load_dataset(kind, data_files=files, **options)


def paired(table: Any, where: str) -> Any:
    """A table of labelled completions (`prompt`, `completion`, `label`) as pairs: the first good one of a prompt with its first
    bad one, and so on. A completion without a partner stands alone, in a row that readers leave out and count. Any other table
    stays as it is.

    Raises:
        UserError: A label is neither true nor false (1 nor 0), or no prompt has both a good and a bad completion.
    """
    import datasets

    if not {"prompt", "completion", "label"} <= set(table.column_names) or "chosen" in table.column_names:
        return table
    for row, label in enumerate(table["label"]):
        if label not in (True, False):
            raise UserError(f"{where}, row {row}: label {label!r}: expected true or false (1 or 0)")
    sides: dict[str, tuple[Any, list[Any], list[Any]]] = {}
    for row in table:
        entry = sides.setdefault(json.dumps(row["prompt"]), (row["prompt"], [], []))
        entry[1 if row["label"] else 2].append(row["completion"])
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt, good, bad in sides.values()
        for chosen, rejected in zip_longest(good, bad)
    ]
    if rows and not any(row["chosen"] is not None and row["rejected"] is not None for row in rows):
        raise UserError(f"{where}: labelled completions, but no prompt has both a good and a bad one; pairs cannot be made")
    return datasets.Dataset.from_list(rows) if rows else table


def _hub_name(source: str) -> tuple[str, ...]:
    """`owner/name`, or `owner/name:configuration` of a data set that has several, as arguments of `datasets.load_dataset`."""
    return tuple(part for part in source.partition(":")[::2] if part)


def _files_by_split(folder: Path) -> dict[str, list[str]]:
    """Split → files of a folder, or of the one folder in it that has any: `train-00000-of-00002.parquet` is of `train`."""
    files: dict[str, list[str]] = {}
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and any(map(_kind, place.iterdir()))]
    if len(inside) > 1 and not any(map(_kind, folder.iterdir())):
        names, some = ", ".join(place.name for place in inside), f"{inside[0]},{inside[1]}"
        raise UserError(f"{folder}: several data sets in it ({names}); pass one of them, or some with commas between: {some}")
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
    return LOADERS.get(suffixes[-1]) if suffixes and file.is_file() and file.name not in NO_DATA else None


def split_shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt and the two continuations of texts that share their beginning.

    Dialogues split after the last assistant turn (a `ValueError` where they differ before it); other texts at the last blank of
    the longest common prefix, so that no word is torn.
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
