"""Tables in local files: which files of a folder are of which split, and their rows, each value as the file has it."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suite.common.errors import UserError

KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
NO_DATA = {"dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that describe a data set."""
SPLITS = {
    "train": ("train", "training"), "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "dev", "val"),
}  # fmt: skip
"""Split → words in the name of a file or a folder that say so, as in `datasets`."""
SEPARATORS = ",;\t"
LARGEST_RATIO, LEAST_LIMIT = 200, 2**26
"""A gzipped file may unpack to so many times its size, or to 64 MiB."""
Row = dict[str, Any]


def kind_of(file: Path) -> str | None:
    """What a file is read as, by its ending; None if it is no table."""
    suffixes = [suffix for suffix in file.suffixes if suffix != ".gz"]
    return KINDS.get(suffixes[-1]) if suffixes and file.is_file() and file.name not in NO_DATA else None


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Split → files of a folder, however deep: by the name's beginning (`train_prefs-00000-of-00002.parquet`), a folder's name
    (`test/0000.parquet`) or a word of the name (`support-test.jsonl`), else train.

    Raises:
        UserError: No table, tables of several kinds, or several data sets in folders of their own.
    """
    files = [file for file in sorted(folder.rglob("*")) if kind_of(file) and not _hidden(file.relative_to(folder))]
    if not files:
        raise UserError(f"{folder}: no {', '.join(KINDS)} file in it")
    root = folder
    while not any(file.parent == root for file in files):
        inside = sorted({root / file.relative_to(root).parts[0] for file in files})
        if len(inside) > 1 and not all(_split_in(place.name) for place in inside):
            names, some = ", ".join(place.name for place in inside), f"{inside[0]},{inside[1]}"
            raise UserError(
                f"{folder}: several data sets in it ({names}); pass one of them, or some with commas between: {some}"
            )
        if len(inside) > 1:
            break
        root = inside[0]
    if len({kind_of(file) for file in files}) > 1:
        raise UserError(f"{folder}: files of several kinds ({', '.join(file.name for file in files)}); keep one kind")
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _split_of(path: Path) -> str:
    """By the beginning of the name, whose further words stay (`train_prefs`), else by a folder's name or a word of the name."""
    first, *more = re.split(r"[^a-zA-Z_]", path.name)[0].rstrip("_").split("_")
    if named := next((split for split, words in SPLITS.items() if first.lower() in words), None):
        return "_".join([named, *more])
    return next((split for part in reversed(path.parts[:-1]) if (split := _split_in(part))), _split_in(path.name) or "train")


def _split_in(name: str) -> str | None:
    parts = set(re.split(r"[^a-zA-Z]", name.lower()))
    return next((split for split, words in SPLITS.items() if parts & set(words)), None)


def read_table(file: Path) -> list[Row]:
    """The rows of a file; of CSV every value is its text. Raises UserError, with the line, if it is no table."""
    kind = kind_of(file)
    if kind is None:
        raise UserError(f"{file}: unknown ending; use one of {', '.join(KINDS)}, gzipped or not")
    if kind == "parquet":
        from pyarrow import parquet

        return parquet.read_table(file).to_pylist()
    text = _text_of(file)
    rows = list(_csv_rows(text, str(file)) if kind == "csv" else _json_rows(text, str(file)))
    if not rows:
        raise UserError(f"{file}: no rows in it")
    return rows


def _text_of(file: Path) -> str:
    """The whole text of a file. Raises UserError if it is empty, is not in UTF-8, or unpacks without end."""
    if file.suffix == ".gz":
        limit = max(LEAST_LIMIT, LARGEST_RATIO * file.stat().st_size)
        with gzip.open(file) as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise UserError(f"{file}: unpacks to more than {LARGEST_RATIO} times its size; unpack it, and look at it, first")
    else:
        content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not in UTF-8 ({error.reason}); save the file as UTF-8") from error
    if not text.strip():
        raise UserError(f"{file}: the file is empty")
    return text


def _csv_rows(text: str, where: str) -> Iterator[Row]:
    """Rows by the names in the first line. A row with more or fewer fields is refused: nobody knows which is missing."""
    first, _, rest = text.lstrip().partition("\n")
    said = re.fullmatch(r"sep=(.)\s*", first)  # as some spreadsheets write it
    separator, text = (said[1], rest) if said else (max(SEPARATORS, key=first.count), text)
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = [name.strip() for name in next(line for line in lines if any(line))]
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise UserError(f"{where}, line 1: two columns are called {twice[0]!r}; rename one")
        for line in lines:
            if any(field.strip() for field in line) and len(line) != len(header):
                raise UserError(
                    f"{where}, line {lines.line_num}: {len(line)} fields, the first line has {len(header)}; is a text with a "
                    f"{separator!r} in it not quoted?"
                )
            if any(field.strip() for field in line):
                if any(field.strip() for name, field in zip(header, line, strict=True) if not name):
                    raise UserError(
                        f"{where}, line {lines.line_num}: a field in a column without a name; name it in the first line"
                    )
                yield {name: field for name, field in zip(header, line, strict=True) if name}
    except csv.Error as error:
        raise UserError(f"{where}, line {lines.line_num}: not CSV ({error})") from error


def _json_rows(text: str, where: str) -> Iterator[Row]:
    """Objects of a list, of lines, or one object that holds a list of them under its only name."""
    lines = text.split("\n") if text.lstrip()[:1] == "{" else []
    if any(isinstance(_parsed(line, ""), dict) for line in list(filter(str.strip, lines))[:2]):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _object(_parsed(line, f"{where}, line {number}"), f"{where}, line {number}")
        return
    whole = _parsed(text, where)
    if isinstance(whole, dict):
        only = next(iter(whole.values())) if len(whole) == 1 else None
        whole = only if isinstance(only, list) and only and isinstance(only[0], dict) else [whole]
    if not isinstance(whole, list):
        raise UserError(f"{where}: expected objects, a line each or in a list; it holds {text.strip()[:20]!r}")
    for number, row in enumerate(whole):
        yield _object(row, f"{where}, row {number}")


def _parsed(text: str, where: str) -> Any:
    """JSON; None where it cannot be parsed and `where` is empty."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not where:
            return None
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{where}: not JSON ({reason})") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with columns, got {type(row).__name__}")
    return row
