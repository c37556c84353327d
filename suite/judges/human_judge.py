"""People as judges: a blinded sheet goes out, the filled one comes in."""

import hashlib
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.data.comparisons import Answer, Failure, Question, Verdict
from suite.judges.judging import OnAnswer, OnStart, shown, text_hash
from suite.judges.templates import CHOICES, Template

RUN_BY_SPREADSHEETS = tuple("=+-@\t\r\n")
"""What a cell begins with that a spreadsheet runs as a formula."""


class HumanJudge:
    """One rater, one CSV file, whose name is the rater's.

    If the file does not exist it is written: rows in an order that the seed decides, the template's question on each, which
    policy is A or B is not to be seen, column `choice` empty. Once it is filled in (A, B or tie) the same command reads it.
    Empty choices count as failed, so a sheet may be handed in half done and completed later.
    """

    def __init__(self, sheet: Path, template: Template, *, seed: int = 0) -> None:
        self.name, self.sheet, self.template, self.seed = f"human:{sheet.stem}", sheet, template, seed
        with self._one_line():
            content = sheet.read_bytes() if sheet.exists() else b""  # the sheet is the record: an edited one is read anew
        digest = hashlib.sha256(content).hexdigest()[:16]
        self.identity: Mapping[str, Any] = {**template.identity, "sheet": str(sheet.resolve()), "content": digest}

    def answer(self, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        """See `suite.interfaces.Judge`; raises UserError if the sheet was written just now, or names the row that is wrong."""
        if not self.sheet.exists():
            self._write(questions)
            raise UserError(
                f"{self.sheet} was written with {len(questions)} questions; fill in the column choice (A, B or tie) and run "
                f"the same command again"
            )
        choices = self._read()
        for question in questions:
            name = row_name(question)
            if name not in choices:
                raise UserError(f"{self.sheet}: question {name} is missing; it belongs to other texts: name another file")
            if on_start(question):
                choice = choices[name]
                on_answer(question, Answer(choice, choice) if choice else Failure("not answered yet"))

    def _write(self, questions: Sequence[Question]) -> None:
        rows = [
            (row_name(q), *map(_cell, (self.template.question, q.comparison.prompt, q.a, q.b)), "")
            for q in dict.fromkeys(questions)
        ]
        random.Random(self.seed).shuffle(rows)
        table = pd.DataFrame(rows, columns=["id", "question", "prompt", "A", "B", "choice"])
        with self._one_line():
            write_atomically(self.sheet, lambda path: table.to_csv(path, index=False, encoding="utf-8-sig"))

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """A place where no sheet can be, as the user's to mend."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{shown(self.sheet)}: {error.strerror}; name a CSV file that can be written") from error

    def _read(self) -> dict[str, Verdict | None]:
        try:
            with self._one_line():
                text = self.sheet.read_text(encoding="utf-8-sig")
            head = text.partition("\n")[0]
            between = ";" if head.count(";") > head.count(",") else ","  # spreadsheets of many countries write semicolons
            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=between)
        except ValueError as error:
            raise UserError(f"{self.sheet}: cannot be read as CSV in UTF-8 ({shown(error)})") from error
        if absent := {"id", "choice"} - set(table.columns):
            raise UserError(f"{self.sheet}: column {', '.join(sorted(absent))} is missing")
        if "question" in table and (
            asked := set(table["question"]) - {_cell(self.template.question), self.template.question, ""}
        ):
            other = shown(asked.pop())
            raise UserError(f"{self.sheet}, question: was written for another template ({other!r}); name another file")
        found: dict[str, Verdict | None] = {}
        for row, (name, choice) in enumerate(zip(table["id"], table["choice"], strict=True), start=2):
            word = choice.strip().lower()
            if not name and not word:  # an empty line at the end
                continue
            if word and word not in CHOICES:
                raise UserError(f"{self.sheet}, line {row}, choice: expected A, B, tie or nothing, got {shown(choice)!r}")
            if name in found:
                raise UserError(f"{self.sheet}, line {row}, id: {shown(name)} stands there twice")
            found[name] = CHOICES.get(word)
        return found


def _cell(text: str) -> str:
    """A text for a spreadsheet to show, and not to run: an apostrophe in front says so. Lines end as they do everywhere."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(RUN_BY_SPREADSHEETS) else text


def row_name(question: Question) -> str:
    """A name that says nothing: a hash of the texts in their order."""
    return "q" + text_hash(question.comparison.prompt, question.a, question.b)[:12]  # spreadsheets take 12e345 for a number
