"""Anybody's preference data: every format becomes the same pairs, as they are."""

import contextlib
import json

import pytest

from suite.common.errors import UserError
from suite.data.readers import load_splits
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS
from suite.tasks.own_data import TASK as OWN
from suite.tasks.own_data import example_of
from suite.tasks.splits import read_part, read_rows, standard_names, text_pairs, used
from suite.tasks.text_format import Limits, prompt_ids, tokenise

TASK = OWN.form
USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Hi?"), ("assistant", "Yes."), ("assistant", "No."))
)


@pytest.fixture(scope="module")
def tokenizer():
    return CausalLMPolicy.load(ASSETS / "imdb-gpt2").tokenizer


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "The sky is", " blue.", " green."),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", " blue.", " green."),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "\n\nHuman: Hi?\n\nAssistant:", " Yes.", " No."),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "\n\nHuman: Hi?\n\nAssistant:", " Yes.", " No."),
    ],
)
def test_every_format_of_trl_is_read(row, prompt, chosen, rejected, tokenizer):
    made = tokenise(TASK, example_of(row), tokenizer, Limits(50, 20))
    assert (made.prompt.text, made.chosen.text, made.rejected.text) == (prompt, chosen, rejected)
    (pair,) = text_pairs(TASK, {"train": [row]}, tokenizer)  # the doctor sees what the policy sees
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, chosen, rejected)


def test_a_text_prompt_is_continued_as_it_is_even_by_a_chat_model(tokenizer):
    import copy

    chat = copy.deepcopy(tokenizer)
    chat.chat_template = (
        "<user>{{ messages[0]['content'] }}<assistant>{% if not add_generation_prompt %}{{ messages[1]['content'] }}{% endif %}"
    )
    text = tokenise(TASK, example_of({"prompt": "The sky is", "chosen": " blue.", "rejected": " red."}), chat, Limits(50, 20))
    talk = tokenise(TASK, example_of({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}), chat, Limits(50, 20))
    assert text.prompt.text == "The sky is"
    assert (talk.prompt.text, talk.chosen.text) == ("<user>Hi?<assistant>", "Yes.")


def test_labelled_completions_become_pairs_where_a_prompt_has_both_kinds(tmp_path):
    rows = [
        {"prompt": "a", "completion": "1", "label": True}, {"prompt": "a", "completion": "2", "label": False},
        {"prompt": "a", "completion": "3", "label": True}, {"prompt": "b", "completion": "4", "label": False},
    ]  # fmt: skip
    (table,) = read_rows(TASK, write(tmp_path / "kto.jsonl", rows)).values()
    alone = [{"prompt": "a", "chosen": "3", "rejected": None}, {"prompt": "b", "chosen": None, "rejected": "4"}]
    assert table == [{"prompt": "a", "chosen": "1", "rejected": "2"}, *alone]  # left out by name, not in silence
    with pytest.raises(UserError, match="no prompt has both a good and a bad one"):
        read_rows(TASK, write(tmp_path / "none.jsonl", rows[3:]))
    with pytest.raises(UserError, match="row 1: label -1: expected true or false"):
        read_rows(TASK, write(tmp_path / "odd.jsonl", [{**row, "label": 2 * row["label"] - 1} for row in rows]))
    assert len(load_splits(str(tmp_path / "kto.jsonl"))["train"]) == 4  # other readers see the rows as they are


def test_what_stands_beside_a_labelled_completion_is_part_of_its_prompt(tmp_path):
    rows = [
        {"Prompt": "a", "Completion": str(k), "Label": k % 2, "system": f"Be {k // 2}.", "source": str(k)} for k in range(4)
    ]  # fmt: skip
    (table,) = read_rows(TASK, write(tmp_path / "kto.jsonl", rows)).values()
    assert table == [
        {"Prompt": "a", "system": "Be 0.", "chosen": "1", "rejected": "0"},
        {"Prompt": "a", "system": "Be 1.", "chosen": "3", "rejected": "2"},
    ]  # fmt: skip
    assert [example_of(row).messages[0] for row in table] == [("system", "Be 0."), ("system", "Be 1.")]


@pytest.mark.parametrize(
    ("names", "trained", "tested"),
    [
        (["train_a", "train_b", "test_a", "test_b"], 2, 2),
        (["train", "test_a", "test_b"], 1, 2),
        (["eval_train", "eval_test"], 0, 0),
        (["validation_a", "harmless"], 1, 0),
    ],
)
def test_no_split_for_testing_is_trained_on(names, trained, tested):
    found = used(standard_names({name: [{"prompt": name}] for name in names}))
    test = found.pop("test", [])
    assert (sum(map(len, found.values())), len(test)) == (trained, tested)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Is it \ud800?", "chosen": "Yes.", "rejected": "No."}, "half of a surrogate pair"),
        (
            {"prompt": "Is it?", "chosen": "\n\nHuman: Is it?\n\nAssistant: Yes.", "rejected": "No."},
            "goes on with another turn",
        ),
    ],
)
def test_texts_that_are_none_or_more_than_one_are_refused_by_name(row, words, tokenizer):
    (pair,) = text_pairs(TASK, {"train": [row]}, tokenizer)
    assert words in pair.fault


def test_rows_in_no_known_format_are_counted_and_named(tokenizer):
    rows = [
        {"chosen": [{"from": "human", "value": "Hi?"}], "rejected": [{"from": "human", "value": "Hi?"}]},
        {"prompt": [{**USER, "content": None}], "chosen": [{**GOOD, "content": None}], "rejected": [BAD]},
        {"prompt": "a", "chosen": " b", "rejected": " c"},
    ]
    pairs = text_pairs(TASK, {"train": rows}, tokenizer)
    assert [bool(pair.fault) for pair in pairs] == [True, True, False]
    found = 0
    for part in ("methods", "judge", "test"):
        with contextlib.suppress(UserError):
            found += len(read_part(TASK, {"train": rows}, part, 10, tokenizer, Limits(50, 20))[0])
    assert found == 1


def test_splits_of_preferences_are_known_by_their_beginnings():
    names = ["train_sft", "test_sft", "train_prefs", "test_prefs"]
    assert {"train", "test"} <= standard_names(dict.fromkeys(names)).keys()
    assert standard_names({"train_prefs": 1, "train_sft": 2})["train"] == 1
    assert standard_names({"train": 1, "train_x": 2, "test": 3}) == {"train": 1, "train_x": 2, "test": 3}
    assert standard_names({"train_data": 1, "test_data": 2}) == {"train": 1, "test": 2}
    assert standard_names({"train": 1, "validation_pairs": 2}) == {"train": 1, "test": 2}
    assert standard_names({"train": 1, "validation": 2}) == {"train": 1, "test": 2}
    assert standard_names({"train": 1, "validation": 2, "test": 3}) == {"train": 1, "validation": 2, "test": 3}
    assert used({"train": 1, "train_sft": 2, "test": 3}) == {"train": 1, "test": 3}
    assert used({"harmless": 1, "helpful": 2}) == {"harmless": 1, "helpful": 2}


def test_a_pair_without_its_other_side_is_left_out_and_counted(tokenizer):
    """In whatever part it falls; a source of prompts with one answer each stays whole."""
    rows = [{"prompt": f"Question {i} is", "chosen": " good.", "rejected": None if i % 5 == 0 else " bad."} for i in range(200)]
    left_out = 0
    for part in ("methods", "judge", "test"):
        examples, counts = read_part(TASK, {"train": rows}, part, 1000, tokenizer, Limits(50, 20))
        assert all(example.rejected is not None for example in examples)
        left_out += counts["rejected is missing"]
    assert left_out == 40
    answers = [{**row, "rejected": None} for row in rows]
    assert len(read_part(TASK, {"train": answers}, "methods", 1000, tokenizer, Limits(50, 20))[0]) > 60


def test_bos_stands_before_prompts_where_the_tokenizer_puts_it_before_every_text(tokenizer):
    import copy

    from tokenizers import processors

    plain = prompt_ids("The sky is", tokenizer)
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<s>"})
    other._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", other.bos_token_id)]
    )
    assert plain[0] != other.bos_token_id
    assert prompt_ids("The sky is", other) == [other.bos_token_id, *plain]
    assert prompt_ids("<s>The sky is", other) == [other.bos_token_id, *plain]  # a chat template has written it
    made = tokenise(TASK, example_of({"prompt": "The sky is", "chosen": " blue.", "rejected": " red."}), other, Limits(50, 20))
    assert made.prompt.ids[0] == other.bos_token_id
    assert other.bos_token_id not in made.chosen.ids


def test_a_row_that_is_no_pair_is_named():
    with pytest.raises(ValueError, match="missing"):
        example_of({"text": "x"})
    with pytest.raises(ValueError, match="differ before"):
        example_of({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "Hm?"}, BAD]})


def test_held_out_prompts_are_nobodys_to_learn_from(tmp_path, tokenizer):
    """With a judge: methods, judge, test. With a reward: train, validation, test. No prompt twice in either."""
    rows = [{"prompt": f"Question {i} is", "chosen": " good.", "rejected": " bad."} for i in range(200)]
    splits = read_rows(TASK, write(tmp_path / "pairs.jsonl", rows))
    for division in (("methods", "judge", "test"), ("train", "validation", "test")):
        parts = [{e.prompt.text for e in read_part(TASK, splits, p, 1000, tokenizer, Limits(50, 20))[0]} for p in division]
        assert sum(map(len, parts)) == 200 == len(set.union(*parts))
        assert all(len(part) >= 10 for part in parts)
    methods, *_ = (read_part(TASK, splits, p, 1000, tokenizer, Limits(50, 20))[0] for p in ("methods", "train"))
    assert len(parts[0]) > 1.5 * len(methods)  # without a judge's half there is more to learn from
