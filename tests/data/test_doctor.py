"""The data doctor on small tables of our own, each with one fault, in every format that TRL documents."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

from suite.cli import main
from suite.common.errors import UserError
from suite.common.sources import data_digest
from suite.data.doctor import examine
from suite.data.readers import split_shared_prompt
from suite.study.profiles import ASSETS
from suite.tasks.own_data import TASK
from suite.tasks.splits import pairs_of, read_rows

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


def read(source, tokenizer):
    return pairs_of(TASK.form, str(source), read_rows(TASK.form, str(source)), tokenizer)


def report(rows, tokenizer, folder, **lengths):
    pairs = read(write(folder / "pairs.jsonl", rows), tokenizer)
    return examine(pairs, tokenizer, **{"max_prompt_tokens": 32, "max_new_tokens": 32, **lengths})


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
        ({"chosen": None}, "error", "chosen or rejected is missing; the row has prompt, rejected"),
        ({"rejected": None}, "error", "rejected is missing"),
        ({"prompt": "film 3 was", "chosen": " good 3 and more", "rejected": " bad 3, alas not"}, "warning", "same pair again"),
        ({"prompt": "film 3 was", "chosen": " bad 3, alas not", "rejected": " good 3 and more"}, "error", "both ways"),
        ({"prompt": "a film " * 20}, "warning", "the prompt has more than 32 tokens"),
        ({"chosen": " good" * 32}, "warning", "more than 32 tokens: cut, and its end is not learned"),  # 33 with EOS
        ({"chosen": "film 99 was good 9", "rejected": "film 99 was bad 9"}, "warning", "both completions repeat the prompt"),
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
    result = examine(read(tmp_path, tokenizer), tokenizer, max_prompt_tokens=32, max_new_tokens=32)
    assert result.rows == {"test": 2, "train": 20}
    assert ("error", ("test:1",)) in found(result)


def conversation(*contents):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 3, contents, strict=False)]


def test_all_formats_give_the_same_pair(tokenizer, chat, tmp_path):
    """As the methods will see them: with a chat template through it, else in the format of HH."""
    shared = "the film was"
    answers = {"chosen": conversation("", "good")[1:], "rejected": conversation("", "bad")[1:]}
    whole = {"chosen": conversation("hi", "good"), "rejected": conversation("hi", "bad")}
    tables = [
        {"prompt": shared, "chosen": " good", "rejected": " bad"},
        {"chosen": shared + " good", "rejected": shared + " bad"},
        {"prompt": conversation("hi"), **answers},
        whole,
        {"prompt": "hi", **answers},
        {"prompt": "hi", **whole},  # the sides repeat the prompt
        {"prompt": conversation("hi"), **whole},
    ]
    for number, row in enumerate(tables):
        for ending in ("jsonl", "jsonl.gz"):
            path = write(tmp_path / f"{number}.{ending}", [row])
            (with_template,), (plain,) = read(path, chat), read(path, tokenizer)
            talk = number >= 2
            expected = ("<user>hi</><assistant>", "good", "bad") if talk else (shared, " good", " bad")
            assert (with_template.prompt, with_template.chosen, with_template.rejected) == expected
            expected = ("\n\nHuman: hi\n\nAssistant:", " good", " bad") if talk else expected
            assert (plain.prompt, plain.chosen, plain.rejected) == expected
            assert plain.guessed == (number == 1)


def test_turns_between_prompt_and_answer_are_kept(chat, tmp_path):
    row = {
        "prompt": "hi",
        "chosen": conversation("", "yes", "why?", "so")[1:],
        "rejected": conversation("", "yes", "why?", "no")[1:],
    }
    (pair,) = read(write(tmp_path / "p.jsonl", [row]), chat)
    assert pair.prompt == "<user>hi</><assistant>yes</><user>why?</><assistant>"
    assert (pair.chosen, pair.rejected) == ("so", "no")


def test_messages_are_texts_or_parts_of_text(chat, tmp_path):
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]
    row = {
        "prompt": [{"role": "user", "content": parts}],
        "chosen": conversation("", "a")[1:],
        "rejected": conversation("", "b")[1:],
    }
    (pair,) = read(write(tmp_path / "p.jsonl", [row]), chat)
    assert pair.prompt == "<user>Hi there</><assistant>"
    row["prompt"][0]["content"] = [{"type": "image", "text": None}]
    with pytest.raises(UserError, match="more than text"):
        read(write(tmp_path / "q.jsonl", [row]), chat)


def test_prompts_that_cannot_be_told_apart(tokenizer, tmp_path):
    same = [{"prompt": "one film was", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(30)]
    assert any("only 1 different prompts" in f.what for f in report(same, tokenizer, tmp_path).findings)
    guessed = [
        {"chosen": f"what a film it was {a} indeed", "rejected": f"what a film it was {a} alas"} for a in ("good", "bad", "so")
    ]
    guessed.append({"chosen": "what a film I saw", "rejected": "what a film we knew"})
    found = [f for f in report(guessed, tokenizer, tmp_path).findings if "another row's whole prompt" in f.what]
    assert found[0].rows == ("train:0", "train:1", "train:2")  # they begin with "what a film", the prompt of the last


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_read_too(tmp_path, ending):
    path = tmp_path / f"pairs.{ending}"
    getattr(pd.DataFrame(GOOD), f"to_{ending}")(path, index=False)
    pairs = read(path, None)
    assert [pair.chosen for pair in pairs] == [row["chosen"] for row in GOOD]


def test_conversations_that_differ_early_are_no_pair(chat, tmp_path):
    row = {"chosen": conversation("hi", "a", "b", "c"), "rejected": conversation("hi", "x", "b", "d")}
    with pytest.raises(UserError, match="the first: chosen and rejected differ before their last message"):
        read(write(tmp_path / "p.jsonl", [row]), chat)


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
    [
        ([{"text": "x"}], "no usable row of 1; the first: chosen or rejected is missing; the row has text"),
        ([{"chosen": "x"}], "the row has chosen"),
        ([], "the file is empty"),
    ],
)
def test_what_is_no_preference_table_is_refused_in_one_line(tmp_path, rows, words):
    with pytest.raises(UserError, match=words):
        read(write(tmp_path / "pairs.jsonl", rows), None)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read("./nothing.jsonl", None)
    (tmp_path / "pairs.txt").write_text("x")
    with pytest.raises(UserError, match="unknown ending"):
        read(tmp_path / "pairs.txt", None)
    (tmp_path / "pairs.jsonl").write_text('{"chosen": "a", "rejected": "b"}\n{not json')
    with pytest.raises(UserError, match=r"pairs.jsonl, line 2: not JSON"):
        read(tmp_path / "pairs.jsonl", None)
    (tmp_path / "pairs.jsonl").write_bytes('{"chosen": "a"}\n{"chosen": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2: not in UTF-8"):
        read(tmp_path / "pairs.jsonl", None)


def test_folders_as_they_are_downloaded(tmp_path):
    """Parquet files in data/, and JSON files that only describe them; a mixture of kinds is refused."""
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset_infos.json").write_text("{}")
    pd.DataFrame(GOOD).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert len(read(tmp_path, None)) == 20
    write(tmp_path / "data" / "test.jsonl", GOOD)
    with pytest.raises(UserError, match="several kinds"):
        read(tmp_path, None)


def test_several_sources_are_put_together(tmp_path):
    """As HH is downloaded: a folder for each kind, with the same files in it."""
    for number, kind in enumerate(("harmless", "helpful")):
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / "train.jsonl", GOOD[10 * number : 10 * number + 10])
        write(tmp_path / kind / "test.jsonl", [{**GOOD[0], "prompt": f"{kind} film was"}])
    with pytest.raises(UserError, match="several data sets in it") as refused:
        read(tmp_path, None)
    both = str(refused.value).rpartition(": ")[2]
    assert both == f"{tmp_path}/harmless,{tmp_path}/helpful"
    found = read(both, None)
    assert [pair.prompt for pair in found if pair.split == "train"] == [row["prompt"] for row in GOOD]
    assert [pair.prompt for pair in found if pair.split == "test"] == ["harmless film was", "helpful film was"]
    before = data_digest(both)
    write(tmp_path / "helpful" / "test.jsonl", GOOD[:2])
    assert data_digest(both) != before  # what is in the files decides, not their names


def test_none_is_a_word_in_csv(tmp_path):
    pd.DataFrame([{**GOOD[0], "chosen": "None"}]).to_csv(tmp_path / "pairs.csv", index=False)
    assert read(tmp_path / "pairs.csv", None)[0].chosen == "None"


@pytest.mark.parametrize(("rows", "code", "word"), [(GOOD, 0, "no errors"), ([{**GOOD[0], "chosen": ""}], 1, "errors found")])
def test_the_command_exits_with_1_on_errors(tmp_path, capsys, monkeypatch, rows, code, word):
    monkeypatch.setattr("sys.argv", ["suite", "doctor", write(tmp_path / "pairs.jsonl", rows)])
    assert main.main() == code
    assert word in capsys.readouterr().out


@pytest.mark.skipif(not HH.exists(), reason="../shared/data/hh is not here")
def test_what_it_finds_on_hh(tokenizer):
    result = examine(read(HH, tokenizer), tokenizer, max_prompt_tokens=256, max_new_tokens=256)
    assert result.rows == {"train": 2312}
    counts = {finding.what.split(":")[0]: len(finding.rows or ()) for finding in result.findings}
    assert counts["chosen and rejected differ before their last assistant turn"] == 5
    assert counts["an empty completion"] == 4
    assert result.chosen_longer.high < 0.5
