"""Other people's data: tables from a file, a folder or the Hub; labelled completions paired, shared prompts split."""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from suite.common.errors import UserError, first_line
from suite.data.fields import ABOUT, canonical
from suite.data.local_files import Row, files_by_split, read_table

LAST_TURN = "\n\nAssistant:"
"""Where a dialogue written as one string splits: after its last occurrence (the format of Anthropic's HH)."""
Table = Sequence[Mapping[str, Any]]
"""Rows by column: a list, or a `datasets.Dataset`."""
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def load_splits(source: str, *, rows: int | None = None) -> dict[str, Table]:
    """Split → rows of a local file, a folder of files or of `save_to_disk`, or a Hub name (`name:configuration`).

    With `rows` no more are given per split, and from the Hub no more are fetched.

    Raises:
        UserError: Nothing there, unreadable, or the Hub cannot be reached; says what to do.
    """
    path = Path(source).expanduser()
    try:
        found = _loaded(source, path, rows)
    except UserError:
        raise
    except Exception as error:  # pandas, pyarrow and datasets raise many kinds: syntax, connection, missing repository
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # what `datasets` wraps says more
        reason = first_line(cause, 100)
        advice = "" if path.exists() else (
            f". Offline? Where there is a network: hf download {_hub_name(source)[0]} --repo-type dataset --local-dir pairs; "
            "pass the folder here"
        )  # fmt: skip
        raise UserError(f"preference data {source!r} could not be read ({type(cause).__name__}: {reason}){advice}") from error
    return {name: table if rows is None or len(table) <= rows else _first(table, rows) for name, table in found.items()}


def sources_of(source: str) -> list[str]:
    """The sources that a text with commas names; a path that has commas itself is one."""
    return [source] if Path(source).expanduser().exists() else [part.strip() for part in source.split(",")]


def names_of(source: str) -> list[str]:
    """What each of several sources is called: its file's or folder's name up to the first dot, or all that was given where two
    would have one name.
    """
    given = sources_of(source)
    short = [Path(part).name.partition(".")[0] or part for part in given]
    return given if len(set(short)) < len(short) else short


def _loaded(source: str, path: Path, rows: int | None) -> dict[str, Table]:
    if path.is_file():
        return {"train": read_table(path)}
    saved = path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists())
    if path.is_dir() and not saved:
        return {name: [row for file in files for row in read_table(file)] for name, files in files_by_split(path).items()}
    if not saved and source.startswith((".", "/", "~")):
        raise UserError(f"{source}: does not exist")
    import datasets

    datasets.disable_progress_bars()
    if saved:
        found = datasets.load_from_disk(str(path))
    elif rows is None:
        found = datasets.load_dataset(*_hub_name(source))
    else:
        streamed = datasets.load_dataset(*_hub_name(source), streaming=True)
        return {name: list(table.take(rows)) for name, table in streamed.items()}
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _first(table: Any, rows: int) -> Table:
    return table[:rows] if isinstance(table, list) else table.select(range(rows))


def paired(table: Table, where: str) -> Table:
    """Labelled completions (`prompt`, `completion`, `label`) as pairs: the first good one of a prompt with its first bad one,
    and so on; what stands beside a prompt, as a system message, is part of it. A completion without a partner stands alone, in
    a row that readers leave out and count. Any other table stays.

    Raises:
        UserError: A label is neither true nor false (1 nor 0), or no prompt has both a good and a bad completion.
    """
    columns = {canonical(str(name)): name for name in table[0]} if len(table) else {}
    if not {"prompt", "completion", "label"} <= columns.keys() or "chosen" in columns:
        return table
    answer, verdict = columns["completion"], columns["label"]
    sides: dict[str, tuple[Row, list[Any], list[Any]]] = {}
    for number, row in enumerate(table):
        label = LABELS.get(str(row.get(verdict)).strip().lower())
        if label is None:
            raise UserError(f"{where}, row {number}: label {row.get(verdict)!r}: expected true or false (1 or 0)")
        rest = {name: value for name, value in row.items() if name not in (answer, verdict)}
        asked = {name: value for name, value in rest.items() if not ABOUT.fullmatch(canonical(str(name)))}
        entry = sides.setdefault(json.dumps(asked, sort_keys=True, default=str), (asked, [], []))
        (entry[1] if label else entry[2]).append(row.get(answer))
    rows: list[Row] = [
        {**asked, "chosen": chosen, "rejected": rejected}
        for asked, good, bad in sides.values()
        for chosen, rejected in zip_longest(good, bad)
    ]
    if not any(row["chosen"] is not None and row["rejected"] is not None for row in rows):
        raise UserError(f"{where}: labelled completions, but no prompt has both a good and a bad one; pairs cannot be made")
    return rows


def _hub_name(source: str) -> tuple[str, ...]:
    """`owner/name`, or `owner/name:configuration` of a data set that has several, as arguments of `datasets.load_dataset`."""
    return tuple(part for part in source.partition(":")[::2] if part)


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
