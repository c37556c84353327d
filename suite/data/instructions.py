"""Instructions that a program can check: whether an answer keeps them is read off its text, no judge is asked."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from suite.common.errors import UserError, listed, shown
from suite.data.local_files import read_table

CHECKS: dict[str, type | None] = {"capitals": None, "contains": str, "at_most_words": int}
"""Check → the type of its value; None where it has none."""
WORD = re.compile(r"\S*\w\S*")
"""Signs between blanks, of which one is a letter or a digit."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a user asks to be kept in every answer, and how that is checked."""

    instruction: str  # as the user says it
    check: str  # one of `CHECKS`
    value: str | int | None = None  # the word of `contains`, the number of `at_most_words`

    def kept(self, answer: str, *, cut: bool = False) -> bool:
        """Whether an answer keeps the instruction. One without a word keeps nothing.

        `capitals`: it has a letter and no lower-case one. `contains`: the value stands in it as a whole word, in any case.
        `at_most_words`: it has no more words than the value; one that was `cut` by a length limit has not kept it, since nobody
        knows how long it would have been.
        """
        words = WORD.findall(answer)
        if not words:
            return False
        if self.check == "capitals":
            return any(map(str.isalpha, answer)) and not any(map(str.islower, answer))
        if self.check == "contains":
            return bool(re.search(rf"(?<!\w){re.escape(str(self.value))}(?!\w)", answer, re.IGNORECASE))
        return not cut and len(words) <= int(self.value or 0)


def read_instructions(file: Path | None = None) -> tuple[Instruction, ...]:
    """The instructions of a JSONL file, a row each: `instruction`, `check`, and `value` where the check has one; those of this
    package where no file is given.

    Raises:
        UserError: The file cannot be read, or a row is none; names file, row and field.
    """
    if file is None:
        with as_file(files("suite.data").joinpath("instructions.jsonl")) as own:
            return read_instructions(own)
    if not file.is_file():
        raise UserError(f"{file}: does not exist, or is no file; give a JSONL file of instructions")
    found: list[Instruction] = []
    for number, row in enumerate(read_table(file), 1):
        made = instruction_of(row, f"{file}, row {number}")
        if any(made.instruction == other.instruction for other in found):
            raise UserError(f"{file}, row {number}, instruction: stands in an earlier row too; drop one")
        found.append(made)
    return tuple(found)


def instruction_of(row: Mapping[str, Any], where: str) -> Instruction:
    """A row as an instruction. Raises a UserError that says `where` and which field is wrong."""
    if unknown := [name for name in row if name not in Instruction.__slots__]:
        raise UserError(f"{where}: unknown field {listed(unknown)}; known: {', '.join(Instruction.__slots__)}")
    text, check, value = (row.get(name) for name in Instruction.__slots__)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}, instruction: expected a sentence, got {shown(repr(text), 40)}")
    if not isinstance(check, str) or check not in CHECKS:
        raise UserError(f"{where}, check: got {shown(repr(check), 40)}; known: {', '.join(CHECKS)}")
    given, kind = shown(repr(value), 40), CHECKS[check]
    if kind is None and value is not None:
        raise UserError(f"{where}, value: the check {check} has none, got {given}; leave it out")
    if kind is str and not (isinstance(value, str) and value.strip() and value == value.strip()):
        raise UserError(f"{where}, value: the check {check} needs a word without blanks at its ends, got {given}")
    if kind is int and (type(value) is not int or value < 1):
        raise UserError(f"{where}, value: the check {check} needs a whole number of 1 or more, got {given}")
    return Instruction(text.strip(), check, value)


def as_rows(instructions: tuple[Instruction, ...]) -> list[dict[str, Any]]:
    """As they stand in a file."""
    return [asdict(instruction) for instruction in instructions]
