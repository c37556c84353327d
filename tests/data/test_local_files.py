"""Files as people have them: every kind, every name, and what is wrong with one said in a line."""

import gzip
import json
import re

import pandas as pd
import pytest

from suite.common.errors import UserError
from suite.data.local_files import files_by_split, read_table
from suite.data.readers import load_splits
from suite.tasks.own_data import FORM
from suite.tasks.splits import read_rows

ROW = {"prompt": "Is it", "chosen": " wet.", "rejected": " dry."}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["a.jsonl"], {"train"}),
        (["train.jsonl", "test.jsonl"], {"train", "test"}),
        (["support-train.jsonl", "support-test.jsonl"], {"train", "test"}),
        (["my.train.jsonl", "my.val.jsonl"], {"train", "validation"}),
        (["train_prefs-00000-of-2.jsonl", "train_prefs-00001-of-2.jsonl", "test_prefs-0.jsonl"], {"train_prefs", "test_prefs"}),
        (["default/train/0000.jsonl", "default/test/0000.jsonl"], {"train", "test"}),
        (["train/a.jsonl", "evaluation/a.jsonl"], {"train", "test"}),
        (["data/train-0.jsonl", "data/test-0.jsonl", "README.md"], {"train", "test"}),
        (["trainer.jsonl", "contest.jsonl"], {"train"}),  # no word of these names is one
        (["train.jsonl", ".cache/test.jsonl"], {"train"}),
        (["training_data.jsonl", "testing_data.jsonl"], {"train_data", "test_data"}),  # the one train, the one test
        (["train.jsonl", "evaluation.jsonl"], {"train", "test"}),
        (["my-train.jsonl", "my-evaluation.jsonl"], {"train", "test"}),
    ],
)  # fmt: skip
def test_splits_are_found_wherever_they_are_named(tmp_path, files, splits):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(ROW))
    found = load_splits(str(tmp_path))
    assert set(found) == splits
    seen = [name for name in files if name.endswith("jsonl") and not name.startswith(".")]
    assert sum(map(len, found.values())) == len(seen)


def test_data_sets_in_folders_of_their_own_are_not_mixed(tmp_path):
    for name in ("harmless", "helpful"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(json.dumps(ROW))
    with pytest.raises(UserError, match=r"several data sets in it \(harmless, helpful\)"):
        files_by_split(tmp_path)
    both = f"{tmp_path / 'harmless'},{tmp_path / 'helpful'}"
    told = [{**ROW, "domain": "harmless"}, {**ROW, "domain": "helpful"}]
    assert read_rows(FORM, both)["train"] == told
    assert read_rows(FORM, both, rows=1)["train"] == told  # so many of each


def test_values_of_a_csv_are_the_text_that_stands_there(tmp_path):
    path = tmp_path / "a.csv"
    for separator in ",;\t":
        lines = [["prompt", "chosen", "rejected"], ["Code?", "007", "None"], ["Word?", "", "nan"]]
        path.write_text("".join(f"{separator.join(line)}\n" for line in lines))
        assert read_table(path) == [
            {"prompt": "Code?", "chosen": "007", "rejected": "None"}, {"prompt": "Word?", "chosen": "", "rejected": "nan"},
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt,chosen,rejected\nq,a,b\nq,a,b,c\n", "line 3: 4 fields, the first line has 3"),
        ("prompt,chosen,rejected\nq,a\n", "line 2: 2 fields, the first line has 3"),
        ("prompt,chosen,chosen\nq,a,b\n", "line 1: two columns are called 'chosen'"),
    ],
)
def test_rows_of_a_csv_have_the_fields_of_its_first_line(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=f"a.csv, {re.escape(words)}"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("sep=;\na; b;;\n1;2;;\n ;;;\n")
    assert read_table(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]
    (tmp_path / "a.csv").write_text("a,\n1,2\n")
    with pytest.raises(UserError, match="line 2: a field in a column without a name"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('a,b\n\n"one, with\r\nlines","said ""so"""\n')
    assert read_table(tmp_path / "a.csv") == [{"a": "one, with\r\nlines", "b": 'said "so"'}]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a": 1}\n\n{"a": "x", "b": null}\r\n', [{"a": 1}, {"a": "x", "b": None}]),
        ('\ufeff{"a": "one\u2028two"}', [{"a": "one\u2028two"}]),
        ('[{"a": 1},\n {"a": {"b": 2}}]', [{"a": 1}, {"a": {"b": 2}}]),
        ('{\n "a": 1\n}', [{"a": 1}]),
        ('{\n "data": [{"a": 1}, {"a": 2}]\n}', [{"a": 1}, {"a": 2}]),
    ],
)
def test_json_in_lists_and_lines(tmp_path, text, rows):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "a.json") == rows
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    assert read_table(tmp_path / "a.jsonl.gz") == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"null", "expected objects, a line each or in a list; it holds 'null'"),
        (b"[null]", "row 0: expected an object with columns, got NoneType"),
        (b'{"a": 1}\nnull\n', "line 2: expected an object with columns, got NoneType"),
        (b"[]", "no rows in it"),
        (b" \n ", "the file is empty"),
        (b'{"a": 1}\n{"a": ', "line 2: not JSON"),
        (b'{"a": \n{"a": 1}\n', "line 1: not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1}\n{"a": "\xff"}', "line 2: not in UTF-8"),
        (b'\xff\xfe{\x00"\x00', "line 1: not in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, content, words):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=f"a.jsonl.*{re.escape(words)}"):
        load_splits(str(tmp_path / "a.jsonl"))


def test_a_file_that_unpacks_without_end_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("suite.data.local_files.LEAST_LIMIT", 1000)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b" " * 10**6)
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        read_table(tmp_path / "a.jsonl.gz")


def test_shards_may_differ_in_columns_that_nobody_needs(tmp_path):
    pd.DataFrame([{**ROW, "note": None}]).to_parquet(tmp_path / "train-0.parquet")
    pd.DataFrame([{**ROW, "note": {"by": "r"}, "round": 2}]).to_parquet(tmp_path / "train-1.parquet")
    rows = load_splits(str(tmp_path))["train"]
    assert [{name: row[name] for name in ROW} for row in rows] == [ROW, ROW]
