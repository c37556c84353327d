"""The data doctor on small tables of our own, each with one fault, in every format that TRL documents."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

from suite import cli
from suite.data.doctor import examine
from suite.data.preference_tables import read_pairs, split_shared_prompt
from suite.errors import UserError
from suite.runs.study import ASSETS

HH = Path(__file__).parents[3] / "shared" / "data" / "hh" / "harmless-base-test.jsonl.gz"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
GOOD = [{"prompt": f"film {i} was", "chosen": f" good {i} and more", "rejected": f" bad {i}, alas not"} for i in range(20)]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")


@pytest.fixture
def chat():
    loaded = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
    loaded.chat_template = TEMPLATE
    return loaded


def write(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def report(rows, tokenizer, folder, **lengths):
    pairs, _ = read_pairs(write(folder / "pairs.jsonl", rows), tokenizer)
    return examine(pairs, tokenizer, **{"max_length": 64, "max_prompt_length": 32, **lengths})


def found(result):
    return {(finding.level, finding.rows) for finding in result.findings}


def test_clean_data_have_no_errors(tokenizer, tmp_path):
    result = report(GOOD, tokenizer, tmp_path)
    assert result.ok
    assert result.rows == {"train": 20}
    assert result.tokens["prompt median"] >= 3


@pytest.mark.parametrize(
    ("row", "level", "words"),
    [
        ({"chosen": " bad 0, alas not"}, "error", "identical"),
        ({"chosen": "  "}, "error", "empty completion"),
        ({"prompt": ""}, "warning", "empty prompt"),
        ({"chosen": None}, "error", "chosen is NoneType, not str"),
        ({"prompt": "film 3 was", "chosen": " good 3 and more", "rejected": " bad 3, alas not"}, "warning", "same pair again"),
        ({"prompt": "film 3 was", "chosen": " bad 3, alas not", "rejected": " good 3 and more"}, "error", "both ways"),
        ({"prompt": "a film " * 40}, "error", "nothing of a completion is left"),
        ({"prompt": "a film " * 20}, "warning", "the prompt is longer"),
        ({"chosen": " good" * 70}, "warning", "the end of a completion is cut"),
        ({"prompt": "film 99 w", "chosen": "as good 9", "rejected": "as bad 9"}, "warning", "merge into one token"),
        ({"chosen": " good<|endoftext|> and more"}, "error", "in the middle"),
        ({"chosen": " good<|endoftext|>", "rejected": " bad<|endoftext|>"}, "error", "these do not"),
    ],
)
def test_each_fault_is_found_in_its_row(tokenizer, tmp_path, row, level, words):
    """The last row has the fault (the one with EOS as text makes the other twenty the odd ones)."""
    rows = [*GOOD, {"prompt": "film 99 was", "chosen": " good 99 and more", "rejected": " bad 0, alas not", **row}]
    findings = report(rows, tokenizer, tmp_path).findings
    match = [finding for finding in findings if words in finding.what]
    assert [finding.level for finding in match] == [level]
    expected = tuple(f"train:{k}" for k in range(20)) if words == "these do not" else ("train:20",)
    assert match[0].rows == expected


def test_scores_that_tie_or_contradict(tokenizer, tmp_path):
    rows = [{**row, "score_chosen": 2.0, "score_rejected": 1.0} for row in GOOD]
    rows[4]["score_rejected"], rows[7]["score_rejected"] = 2.0, 3.0
    result = report(rows, tokenizer, tmp_path)
    assert ("warning", ("train:4",)) in found(result)
    assert ("error", ("train:7",)) in found(result)


def test_length_bias_is_measured(tokenizer, tmp_path):
    rows = [{**row, "chosen": row["chosen"] + " and on and on"} for row in GOOD]
    result = report(rows, tokenizer, tmp_path)
    assert result.chosen_longer.mean == 1
    assert any("length bias" in finding.what and "100%" in finding.what for finding in result.findings)
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if i % 2 else row for i, row in enumerate(rows)]
    assert not any("length bias" in finding.what for finding in report(turned, tokenizer, tmp_path).findings)


def test_a_prompt_in_two_splits_is_a_leak(tokenizer, tmp_path):
    write(tmp_path / "train.jsonl", GOOD)
    write(tmp_path / "test.jsonl", [{**GOOD[0], "prompt": "film 100 was"}, GOOD[5]])
    pairs, _ = read_pairs(str(tmp_path))
    result = examine(pairs, tokenizer, max_length=64, max_prompt_length=32)
    assert result.rows == {"test": 2, "train": 20}
    assert ("error", ("test:1",)) in found(result)


def conversation(*contents):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 3, contents, strict=False)]


def test_all_formats_give_the_same_pair(tokenizer, chat, tmp_path):
    shared = "the film was"
    tables = {
        "explicit prompt": {"prompt": shared, "chosen": " good", "rejected": " bad"},
        "implicit prompt": {"chosen": shared + " good", "rejected": shared + " bad"},
        "explicit prompt, conversations": {
            "prompt": conversation("hi"), "chosen": conversation("", "good")[1:], "rejected": conversation("", "bad")[1:]
        },
        "implicit prompt, conversations": {"chosen": conversation("hi", "good"), "rejected": conversation("hi", "bad")},
    }  # fmt: skip
    for form, row in tables.items():
        for ending in ("jsonl", "jsonl.gz"):
            pairs, detected = read_pairs(write(tmp_path / f"{form.replace(' ', '_')}.{ending}", [row]), chat)
            assert detected == form
            expected = ("<user>hi</><assistant>", "good</>", "bad</>") if "conv" in form else (shared, " good", " bad")
            assert (pairs[0].prompt, pairs[0].chosen, pairs[0].rejected) == expected
    with pytest.raises(UserError, match="no chat template"):
        read_pairs(str(tmp_path / "implicit_prompt,_conversations.jsonl"), tokenizer)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_read_too(tmp_path, ending):
    path = tmp_path / f"pairs.{ending}"
    getattr(pd.DataFrame(GOOD), f"to_{ending}")(path, index=False)
    pairs, _ = read_pairs(str(path))
    assert [pair.chosen for pair in pairs] == [row["chosen"] for row in GOOD]


def test_conversations_that_differ_early_are_no_pair(chat, tmp_path):
    row = {"chosen": conversation("hi", "a", "b", "c"), "rejected": conversation("hi", "x", "b", "d")}
    pairs, _ = read_pairs(write(tmp_path / "p.jsonl", [row]), chat)
    assert pairs[0].fault == "chosen and rejected differ before their last message"


def test_dialogues_split_after_the_last_assistant_turn():
    turns = "\n\nHuman: hi\n\nAssistant: yes\n\nHuman: more\n\nAssistant:"
    assert split_shared_prompt(turns + " Sure.", turns + " Surely not.") == (turns, " Sure.", " Surely not.")
    with pytest.raises(ValueError, match="last assistant turn"):
        split_shared_prompt(turns + " Sure.", turns.replace("yes", "no") + " Sure.")


def test_other_texts_split_at_a_blank():
    assert split_shared_prompt("the film was great", "the film was grim") == ("the film was", " great", " grim")
    assert split_shared_prompt("abc", "xyz") == ("", "abc", "xyz")


@pytest.mark.parametrize(
    ("rows", "words"),
    [([{"text": "x"}], "no column chosen and rejected"), ([{"chosen": "x"}], "no column rejected"), ([], "no rows|could not")],
)
def test_what_is_no_preference_table_is_refused_in_one_line(tmp_path, rows, words):
    with pytest.raises(UserError, match=words):
        read_pairs(write(tmp_path / "pairs.jsonl", rows))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_pairs("./nothing.jsonl")
    (tmp_path / "pairs.txt").write_text("x")
    with pytest.raises(UserError, match="unknown ending"):
        read_pairs(str(tmp_path / "pairs.txt"))
    (tmp_path / "pairs.jsonl").write_text("{not json")
    with pytest.raises(UserError, match="could not be read"):
        read_pairs(str(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize(("rows", "code", "word"), [(GOOD, 0, "no errors"), ([{**GOOD[0], "chosen": ""}], 1, "errors found")])
def test_the_command_exits_with_1_on_errors(tmp_path, capsys, monkeypatch, rows, code, word):
    monkeypatch.setattr("sys.argv", ["suite", "doctor", write(tmp_path / "pairs.jsonl", rows)])
    assert cli.main() == code
    assert word in capsys.readouterr().out


@pytest.mark.skipif(not HH.exists(), reason="../shared/data/hh is not here")
def test_what_it_finds_on_hh(tokenizer):
    pairs, form = read_pairs(str(HH))
    result = examine(pairs, tokenizer, max_length=512, max_prompt_length=256)
    assert form == "implicit prompt"
    assert result.rows == {"train": 2312}
    counts = {finding.what.split(":")[0]: len(finding.rows or ()) for finding in result.findings}
    assert counts["chosen and rejected differ before their last assistant turn"] == 5
    assert counts["an empty completion"] == 4
    assert result.chosen_longer.high < 0.5
