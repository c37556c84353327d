"""User turns of every layout, dialogues of one length, and a division in which no user turn is on both sides."""

import json

import pytest

from suite.common.errors import UserError
from suite.tasks.dialogues import Dialogue, joined, read_dialogues, user_turns
from suite.tasks.splits import parts_of

TALK = [
    {"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Where is Rome?"},
]  # fmt: skip
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Where is Rome?\n\nAssistant: In Italy."


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": HH, "rejected": HH.replace("In Italy", "No")},
        {"chosen": HH, "rejected": HH.replace("Hello", "Go away")},  # what assistants say does not matter
        {"prompt": HH.removesuffix(" In Italy."), "chosen": " In Italy.", "rejected": " No."},
        {"messages": TALK},
        {"messages": [*TALK, {"role": "assistant", "content": "In Italy."}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."},
                           {"from": "human", "value": "Where is Rome?"}]},
        {"chosen": [*TALK, {"role": "assistant", "content": "In Italy."}]},
        {"messages": json.dumps(TALK)},
        {"text": HH, "id": 3},
    ],
)  # fmt: skip
def test_the_users_turns_of_every_layout(row):
    assert user_turns(row) == ("Hi", "Where is Rome?")


def test_a_text_without_speakers_and_an_instruction_with_its_input_are_one_turn():
    assert user_turns({"prompt": "Where is Rome?"}) == ("Where is Rome?",)
    assert user_turns({"instruction": "Add them.", "input": "1, 2"}) == ("Add them.\n\n1, 2",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"rating": 3}, "no column with a dialogue; the row has rating"),
        ({"messages": 3}, "expected text or messages, got int"),
        ({"text": "To whom\n\nHuman: Hi"}, "text before the first speaker"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool calls"),
    ],
)
def test_a_row_without_a_dialogue_says_so(row, words):
    with pytest.raises(ValueError, match=words):
        user_turns(row)


def test_short_dialogues_are_followed_by_the_next_and_long_ones_are_cut():
    said = {"a": "1 2", "b": "3", "c": "4 5 6 7", "d": "8 9 0", "e": "x"}
    a, b, c, d, e = (Dialogue(name, tuple(turns.split())) for name, turns in said.items())
    assert joined([a, b, c, d, e], 3, 9) == ([Dialogue("a", ("1", "2", "3")), Dialogue("c", ("4", "5", "6")), d], 1)
    assert joined([a, b, c, d, e], 3, 1) == ([Dialogue("a", ("1", "2", "3"))], 3)
    assert joined([a], 3, 9) == ([], 1)
    assert joined([a, c], 3, 9)[0] == [Dialogue("a", ("1", "2", "4"))]


def rows(*dialogues):
    return [{"messages": [{"role": "user", "content": turn} for turn in turns]} for turns in dialogues]


def test_no_user_turn_is_on_both_sides_and_the_order_of_rows_does_not_matter():
    data = [(f"question {number}", f"more {number % 30}", "thanks") for number in range(200)]
    data = [turns[: 1 + number % 2] for number, turns in enumerate(data)]
    found, counts = read_dialogues({"train": rows(*data)}, 2, train=1000, test=20)
    said = {part: {turn for dialogue in found[part] for turn in dialogue.turns} for part in found}
    assert len(found["test"]) == 20
    assert not said["train"] & said["test"]
    assert all(len(dialogue.turns) == 2 for part in found.values() for dialogue in part)
    assert counts["rows"] == 200
    assert counts["shares a user turn with a test dialogue"] > 0
    assert counts["used"] + counts["not needed"] + counts["shares a user turn with a test dialogue"] == 200
    first = [dialogue.id for dialogue in found["test"]]
    assert all(parts_of(name) == ("test",) for name in first)
    assert first == sorted(first)
    assert read_dialogues({"train": rows(*reversed(data))}, 2, train=1000, test=20)[0] == found


def test_a_split_for_testing_is_kept_for_it():
    train, test = [(f"a {k}", f"b {k}") for k in range(9)], [(f"c {k}", f"d {k}") for k in range(3)]
    found, _ = read_dialogues({"train": rows(*train, ("c 1", "more")), "test": rows(*test)}, 2, train=99, test=99)
    assert {dialogue.turns for dialogue in found["test"]} == set(test)
    assert {dialogue.turns for dialogue in found["train"]} == set(train)


def test_of_dialogues_that_begin_alike_the_longest_is_taken():
    data = {"train": rows(("a",), (" a ", "b", "c"), ("a", "b")), "test": rows(("x", "1", "2"), ("y", "3", "4"))}
    found, counts = read_dialogues(data, 3, train=9, test=9)
    assert [dialogue.turns for dialogue in found["train"]] == [("a", "b", "c")]
    assert counts["begins as another"] == 2


def test_too_few_dialogues_are_refused_with_counts():
    with pytest.raises(UserError, match=r"1 dialogues of 2 user turns to train on and 0 to test on.*'rows': 3"):
        read_dialogues({"train": [*rows(("a", "b")), {"x": 1}], "test": rows(("c",))}, 2, train=9, test=9)
