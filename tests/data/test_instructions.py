"""Instructions that a program checks: hand-made answers on either side of every rule, and files that are refused by name."""

import json

import pytest

from suite.common.errors import UserError
from suite.data.instructions import Instruction, read_instructions

CAPITALS = Instruction("Shout.", "capitals")
OCEAN = Instruction("Say ocean.", "contains", "ocean")
THREE = Instruction("Be brief.", "at_most_words", 3)


@pytest.mark.parametrize(
    ("instruction", "answer", "kept"),
    [
        (CAPITALS, "I AM HERE, 24/7!", True),
        (CAPITALS, "I AM HERe", False),
        (CAPITALS, "ÄRGER", True),
        (CAPITALS, "ÄRGEr ß", False),
        (CAPITALS, "42!", False),  # no letter
        (OCEAN, "The Ocean.", True),
        (OCEAN, "OCEAN", True),
        (OCEAN, "Many oceans", False),
        (OCEAN, "an ocean-blue sea", True),
        (OCEAN, "oceanic", False),
        (OCEAN, "my_ocean", False),
        (Instruction("Say C++.", "contains", "C++"), "I like c++ best", True),
        (Instruction("Say a.c.", "contains", "a.c"), "abc", False),  # no pattern
        (THREE, "one two three", True),
        (THREE, "one two three four", False),
        (THREE, "one — two , three", True),  # signs alone are no words
        *((instruction, empty, False) for instruction in (CAPITALS, OCEAN, THREE) for empty in ("", " \n", "...")),
    ],
)
def test_what_keeps_an_instruction(instruction, answer, kept):
    assert instruction.kept(answer) is kept


def test_an_answer_that_was_cut_is_not_known_to_be_short_but_to_be_in_capitals():
    assert not THREE.kept("one two", cut=True)
    assert CAPITALS.kept("ONE TWO", cut=True)
    assert OCEAN.kept("the ocean", cut=True)


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_file_is_read_row_by_row(tmp_path):
    file = write(
        tmp_path / "own.jsonl",
        {"instruction": " Shout. ", "check": "capitals"},
        {"instruction": "Say ocean.", "check": "contains", "value": "ocean"},
        {"instruction": "Be brief.", "check": "at_most_words", "value": 3},
    )
    assert read_instructions(file) == (CAPITALS, OCEAN, THREE)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"check": "capitals"}, "row 2, instruction: expected a sentence, got None"),
        ({"instruction": "  ", "check": "capitals"}, "row 2, instruction: expected"),
        ({"instruction": "a", "check": "capital"}, "row 2, check: got 'capital'; known: capitals, contains, at_most_words"),
        ({"instruction": "a", "check": ["x"]}, "row 2, check: got"),
        ({"instruction": "a", "check": "capitals", "value": 3}, "row 2, value: the check capitals has none"),
        ({"instruction": "a", "check": "contains"}, "row 2, value: the check contains needs a word"),
        ({"instruction": "a", "check": "contains", "value": " b"}, "row 2, value: the check contains needs a word"),
        ({"instruction": "a", "check": "at_most_words", "value": "3"}, "row 2, value: the check at_most_words needs"),
        ({"instruction": "a", "check": "at_most_words", "value": 0}, "row 2, value: the check at_most_words needs"),
        ({"instruction": "a", "check": "at_most_words", "value": True}, "row 2, value: the check at_most_words needs"),
        ({"instruction": "a", "check": "capitals", "valve": 3}, "row 2: unknown field valve"),
        ({"instruction": "Shout.", "check": "capitals"}, "row 2, instruction: stands in an earlier row too"),
    ],
)
def test_a_bad_row_is_refused_by_file_row_and_field(tmp_path, row, words):
    file = write(tmp_path / "own.jsonl", {"instruction": "Shout.", "check": "capitals"}, row)
    with pytest.raises(UserError) as error:
        read_instructions(file)
    assert str(error.value).startswith(f"{file}, {words}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: does not exist"):
        read_instructions(tmp_path / "none.jsonl")


def test_the_packages_own_list_has_two_kinds_by_turns():
    own = read_instructions()
    assert [instruction.check for instruction in own] == ["contains", "at_most_words"] * 6
    for instruction in own:  # the sentence asks for what is checked
        assert str(instruction.value) in instruction.instruction
