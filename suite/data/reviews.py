"""Labelled movie reviews from wherever the user has them: a Hub name, a `save_to_disk` folder or local tables."""

import re
from dataclasses import dataclass
from pathlib import Path

from suite.common.errors import UserError

READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".jsonl": "read_json", ".json": "read_json"}


@dataclass(frozen=True)
class Reviews:
    """One split of a labelled review corpus: plain texts, and 1 for each positive one, 0 for each negative one."""

    texts: list[str]
    labels: list[int]


def clean(text: str) -> str:
    """Replace the corpus's `<br />` runs by one newline and strip the ends."""
    return re.sub(r"\s*(<br\s*/?>\s*)+", "\n", text).strip()


def load_reviews(source: str, split: str) -> Reviews:
    """Read the `split` ("train" or "test") of a review data set with columns `text` and `label`.

    The source is a local folder holding `<split>.parquet|csv|jsonl`, one such file (then every split reads it), a folder
    written by `datasets.save_to_disk`, or a Hub name such as `stanfordnlp/imdb`.

    Raises:
        UserError: Nothing there, the Hub cannot be reached, or a row is malformed (file, row and field named).
    """
    import pandas as pd

    path = Path(source).expanduser()
    if path.is_dir() and not (path / "dataset_dict.json").exists():
        names = [f"{split}{ending}" for ending in READERS]
        found = [path / name for name in names if (path / name).exists()]
        if not found:
            raise UserError(f"{path}: no {split} split; expected one of {', '.join(names)}")
        path = found[0]
    if path.is_file():
        if path.suffix not in READERS:
            raise UserError(f"{path}: unknown ending {path.suffix!r}; use one of {', '.join(READERS)}")
        keywords = {"lines": True} if path.suffix == ".jsonl" else {}
        try:
            return _validated(getattr(pd, READERS[path.suffix])(path, **keywords), str(path))
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    import datasets

    try:
        saved = path.is_dir()
        table = datasets.load_from_disk(str(path))[split] if saved else datasets.load_dataset(source, split=split)
    except Exception as error:  # datasets raises many kinds: connection, missing repository, missing split
        raise UserError(
            f"reviews {source!r} (split {split!r}) could not be loaded: {type(error).__name__}. Offline? Where there is a "
            f"network, run: python -c \"import datasets; datasets.load_dataset('stanfordnlp/imdb').save_to_disk('imdb')\", "
            f"copy the folder here and pass its path"
        ) from error
    return _validated(table.to_pandas(), f"{source}[{split}]")


def _validated(frame, where: str) -> Reviews:
    for column in ("text", "label"):
        if column not in frame.columns:
            raise UserError(f"{where}: no column {column!r}; found {', '.join(map(str, frame.columns))}")
    for row, (text, label) in enumerate(zip(frame["text"], frame["label"], strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: row {row}, field 'text': expected a non-empty string, got {text!r}")
        if label not in (0, 1):
            raise UserError(f"{where}: row {row}, field 'label': expected 0 (negative) or 1 (positive), got {label!r}")
    return Reviews(list(map(clean, frame["text"])), list(map(int, frame["label"])))
