"""Labelled movie reviews from wherever the user has them: a Hub name, a `save_to_disk` folder or local tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from suite.errors import UserError

READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".jsonl": "read_json", ".json": "read_json"}


@dataclass(frozen=True)
class Reviews:
    """One split of a labelled review corpus.

    Attributes:
        texts: Plain text, HTML line breaks replaced by newlines.
        labels: 1 = positive, 0 = negative; same length as `texts`.
        source: Where the rows came from, for cards and error messages.
    """

    texts: list[str]
    labels: list[int]
    source: str


def clean(text: str) -> str:
    """Replace the corpus's `<br />` runs by one newline and strip the ends."""
    return re.sub(r"\s*(<br\s*/?>\s*)+", "\n", text).strip()


def load_reviews(source: str, split: str) -> Reviews:
    """Read the `split` ("train" or "test") of a review data set with columns `text` and `label`.

    Args:
        source: A local folder holding `<split>.parquet|csv|jsonl`, one such file (then every split reads it), a folder
            written by `datasets.save_to_disk`, or a Hub name such as `stanfordnlp/imdb`.
        split: Name of the split.

    Raises:
        UserError: Nothing there, the Hub cannot be reached, or a row is malformed (file, row and field named).
    """
    import pandas as pd

    path = Path(source).expanduser()
    if path.is_dir() and not (path / "dataset_dict.json").exists():
        files = [path / f"{split}{ending}" for ending in READERS]
        found = [file for file in files if file.exists()]
        if not found:
            raise UserError(f"{path}: no {split} split; expected one of {', '.join(f.name for f in files)}")
        path = found[0]
    if path.is_file():
        if path.suffix not in READERS:
            raise UserError(f"{path}: unknown ending {path.suffix!r}; use one of {', '.join(READERS)}")
        keywords = {"lines": True} if path.suffix == ".jsonl" else {}
        try:
            frame = getattr(pd, READERS[path.suffix])(path, **keywords)
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
        where = str(path)
    else:
        frame, where = _load_with_datasets(source, path, split), f"{source}[{split}]"
    return _validated(frame, where)


def _load_with_datasets(source, path: Path, split: str):
    import datasets

    try:
        if path.is_dir():
            return datasets.load_from_disk(str(path))[split].to_pandas()
        return datasets.load_dataset(source, split=split).to_pandas()
    except Exception as error:  # datasets raises many kinds: connection, missing repository, missing split
        raise UserError(
            f"reviews {source!r} (split {split!r}) could not be loaded: {type(error).__name__}. Offline? Where there is a "
            f"network, run: python -c \"import datasets; datasets.load_dataset('stanfordnlp/imdb').save_to_disk('imdb')\", "
            f"copy the folder here and pass its path"
        ) from error


def _validated(frame, where: str) -> Reviews:
    for column in ("text", "label"):
        if column not in frame.columns:
            raise UserError(f"{where}: no column {column!r}; found {', '.join(map(str, frame.columns))}")
    texts, labels = [], []
    for row, (text, label) in enumerate(zip(frame["text"], frame["label"], strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: row {row}, field 'text': expected a non-empty string, got {text!r}")
        if label not in (0, 1):
            raise UserError(f"{where}: row {row}, field 'label': expected 0 (negative) or 1 (positive), got {label!r}")
        texts.append(clean(text))
        labels.append(int(label))
    return Reviews(texts, labels, where)
