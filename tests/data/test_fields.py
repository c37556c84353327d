"""What a row means, whatever its columns are called: each layout of other people's data, with its right reading."""

import json
import math
import re

import pytest

from suite.data.fields import canonical, fields_of

USER, SYSTEM = {"role": "user", "content": "Is it wet?"}, {"role": "system", "content": "Be kind."}
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes, very.", "No."))
TEXTS = {"chosen": "Yes, very.", "rejected": "No."}
TALK = (("user", "Is it wet?"),)
WITH_SYSTEM = (("system", "Be kind."), *TALK)


def share(role, text):
    return {"from": role, "value": text}


@pytest.mark.parametrize(
    ("row", "turns", "how"),
    [
        ({"question": "Is it wet?", **TEXTS}, TALK, "prompt: column question; chosen: column chosen;"),
        ({"Instruction": "Is it wet?", **TEXTS}, TALK, "prompt: column Instruction;"),
        ({"instruction": "Is it", "input": "wet?", **TEXTS}, (("user", "Is it\n\nwet?"),), "instruction and column input"),
        ({"input": "Is it wet?", "chosen_response": "Yes, very.", "rejected_response": "No."}, TALK,
         "chosen: column chosen_response"),
        ({"system": "Be kind.", "question": "Is it wet?", **TEXTS}, WITH_SYSTEM, "system: column system;"),
        ({"system": "", "question": "Is it wet?", **TEXTS}, TALK, "prompt: column question; chosen"),
        ({"system": "Be kind.", "prompt": "Is it wet?", **TEXTS}, WITH_SYSTEM, "system: column system;"),
        ({"system": "Be kind.", "prompt": [SYSTEM, USER], **TEXTS}, WITH_SYSTEM, "system: column system;"),
        ({"prompt": [USER], "chosen": [YES], "rejected": [NO]}, TALK, "chosen: column chosen, the last turn;"),
        ({"system": "Be kind.", "chosen": [USER, YES], "rejected": [USER, NO]}, WITH_SYSTEM, "system: column system;"),
        ({"prompt": [USER], "chosen": YES, "rejected": NO}, TALK, "chosen: column chosen, the last turn;"),
        ({"prompt": [USER], **TEXTS}, TALK, "prompt: column prompt; chosen: column chosen;"),
        ({"chosen": [USER, YES], "rejected": [USER, NO]}, TALK, "prompt: the turns before;"),
        ({"messages": [USER], "chosen": YES, "rejected": NO}, TALK, "prompt: column messages;"),
        ({"messages": [USER, YES], "chosen": [USER, YES], "rejected": [USER, NO]}, TALK, "prompt: column messages;"),
        ({"prompt": "Is it wet?", "messages": [USER, YES], "chosen": [USER, YES], "rejected": [USER, NO]}, TALK, ": messages"),
        ({"conversations": [share("human", "Is it wet?")], "chosen": share("gpt", "Yes, very."),
          "rejected": share("gpt", "No.")}, TALK, "prompt: column conversations;"),
        ({"prompt": "Is it wet?", "chosen": [SYSTEM, USER, YES], "rejected": [SYSTEM, USER, NO]}, WITH_SYSTEM, "column prompt"),
        ({"prompt": "Is  it wet? ", "chosen": [USER, YES], "rejected": [USER, NO]}, TALK, "prompt: column prompt;"),
        ({"chosen": json.dumps([USER, YES]), "rejected": json.dumps([USER, NO])}, TALK, "prompt: the turns before;"),
        ({"prompt": "", "question": "Is it wet?", **TEXTS}, TALK, "prompt: column question;"),
        ({"prompt": [{**SYSTEM, "content": " "}, USER], **TEXTS}, TALK, "prompt: column prompt;"),
        ({"prompt": [{**SYSTEM, "role": "developer"}, USER], **TEXTS}, WITH_SYSTEM, "prompt: column prompt;"),
        ({"question": "Is it wet?", **TEXTS, "tools": "[]", "источник": "a", "дата": "b", "ID": 1, "id": 2}, TALK, "question;"),
        ({"chosen": str([USER, YES]), "rejected": str([USER, NO])}, TALK, "prompt: the turns before;"),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_conversation(row, turns, how):
    found = fields_of(row)
    assert found.turns == turns
    assert found.prompt is None
    assert (found.chosen, found.rejected) == ("Yes, very.", "No.")
    assert how in found.how


def test_a_column_prompt_is_continued_as_it_is_and_none_is_left_to_the_task():
    found = fields_of({"prompt": "It is", "chosen": " wet.", "rejected": " dry."})
    assert (found.prompt, found.turns) == ("It is", ())
    assert found.how == "prompt: column prompt; chosen: column chosen; rejected: column rejected; scores: none"
    found = fields_of({"chosen": "It is wet.", "rejected": "It is dry."})
    assert (found.prompt, found.turns) == (None, ())
    assert "what chosen and rejected have in common" in found.how


@pytest.mark.parametrize(
    "names",
    [
        ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"),
        ("chosen-rating", "rejected-rating"), ("chosenScore", "rejectedScore"), ("chosen_avg_rating", "rejected_avg_rating"),
        ("rating_chosen", "rating_rejected"), ("reward_chosen", "reward_rejected"), ("Chosen Reward", "Rejected Reward"),
    ],
)  # fmt: skip
def test_every_common_name_of_a_score_is_one(names):
    found = fields_of({"prompt": "It is", **TEXTS, names[0]: 4.5, names[1]: "2"})
    assert found.scores == (4.5, 2.0)
    assert f"scores: column {names[0]} and column {names[1]}" in found.how


@pytest.mark.parametrize(
    "text", ['{"content": 5}', '[{"role": 1}]', '{"role": "a"} and "content": b', "[1, 2]", "[]", '{"from": "a", "x": 1}']
)
def test_answers_in_json_are_texts(text):
    assert fields_of({"prompt": "In JSON:", "chosen": text, "rejected": "No."}).chosen == text


def test_what_is_no_score_is_none_and_what_is_no_number_is_seen():
    assert fields_of({"prompt": "It is", **TEXTS, "chosen_score": 1.0}).scores is None  # one side alone
    assert fields_of({"prompt": "It is", **TEXTS, "chosen_model": 1, "rejected_model": 2}).scores is None
    chosen, rejected = fields_of({"prompt": "It is", **TEXTS, "score_chosen": "high", "score_rejected": math.inf}).scores
    assert math.isnan(chosen)
    assert rejected == math.inf


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "chosen or rejected is missing; the row has text"),
        ({"prompt": "Is it?", "chosen": 7, "rejected": "No."}, "column chosen: expected text or messages, got int '7'"),
        ({"prompt": 5, **TEXTS}, "column prompt: expected text or messages, got int"),
        ({**TEXTS, "background": "It has rained for three days here."}, "column background has text that is not read"),
        ({"prompt": "Is it wet?", **TEXTS, "context": "It has rained for days."}, "column context has text that is not read"),
        ({"question": "Is it wet?", **TEXTS, "history": [USER, {**YES, "content": "It was so before."}]}, "column history has"),
        ({**TEXTS, "system": "Be as kind as can be."}, "column system has text that is not read"),
        ({**TEXTS, "system": "Be kind."}, "column system has text that is not read"),
        ({"prompt": "Is it wet?", **TEXTS, "context": ["It has rained for days."]}, "column context has text that is"),
        ({"prompt": "Is it wet?", **TEXTS, "more": {"a": [{"b": "It has rained for days."}]}}, "column more has text that"),
        ({"prompt": "Is it wet?", "Prompt": "Is it cold?", **TEXTS}, "columns prompt and Prompt are one name"),
        ({**TEXTS, "frage": "请问今天外面的天气到底怎么样呢"}, "column frage has text that is not read"),
        ({"prompt": [USER], "chosen": [{**YES, "tool_calls": [{"id": "a"}]}], "rejected": [NO]}, "tool calls are not read"),
        ({"prompt": [USER, {"role": "tool", "content": "4"}], "chosen": [YES], "rejected": [NO]}, "tool calls are not read"),
        ({"prompt": [USER], "chosen": [YES], "rejected": [NO], "tools": [{"name": "f"}]}, "column tools: tools are not read"),
        ({"prompt": [USER], "chosen": [YES, USER], "rejected": [NO, USER]}, "the last message is not the assistant's"),
        ({"prompt": [{"role": "narrator", "content": "x"}], **TEXTS}, "a message has the role 'narrator'"),
        ({"prompt": "Is it cold?", "chosen": [USER, YES], "rejected": [USER, NO]}, "two turns of one speaker in a row"),
        ({"chosen": [USER, YES], "rejected": [{**USER, "content": "Hm?"}, NO]}, "differ before their last message"),
        ({"prompt": [USER], "chosen": [{**YES, "reasoning_content": "Hm."}], "rejected": [NO]}, "thoughts beside an answer"),
        ({"prompt": "Is it wet?", **TEXTS, "image": "a.jpg"}, "column image: images are not read"),
        ({"prompt": "Is it wet?", **TEXTS, "instruction": "Say"}, "column instruction has text that is not read"),
        ({**TEXTS, "source": "Is it wet or is it not?"}, "column source has text that is not read"),
        ({"prompt": [USER, SYSTEM, USER], **TEXTS}, "a system message stands inside the conversation"),
        ({"system": "Be rude.", "prompt": [SYSTEM, USER], **TEXTS}, "different system messages"),
        ({"chosen": "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant'}]", "rejected": "b"}, "text that cannot be read"),
        ({"prompt": [{"role": "user", "content": None}], **TEXTS}, "a message has no text"),
        ({"prompt": ["Is it wet?"], **TEXTS}, "a message is a str, not an object"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(row, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fields_of(row)


@pytest.mark.parametrize(
    "name", ["source", "prompt_id", "rationale", "labelling_prompt", "raw_response", "note", "chosen_model", "generations"]
)
def test_columns_about_a_row_may_hold_any_text(name):
    found = fields_of({"prompt": "Is it wet?", **TEXTS, name: "one two three four five"})
    assert f"not read: {name}" in found.how


def test_columns_that_say_again_what_is_read_are_no_loss():
    row = {"prompt": "Is it wet out there?", **TEXTS, "original": "Is it wet out there?", "wishes": "wet out"}
    assert fields_of(row).prompt == "Is it wet out there?"


def test_names_are_compared_without_case_and_marks():
    assert [canonical(name) for name in ("Chosen Score", "chosenScore", " chosen-score ", "chosen.score")] == [
        "chosen_score"
    ] * 4
