"""People as judges: a blinded sheet goes out, the filled one comes in."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.errors import UserError
from suite.files import write_atomically
from suite.judges.judging import Answer, Failure, Question, Verdict
from suite.judges.templates import Template

COLUMNS = ["id", "question", "prompt", "A", "B", "choice"]
CHOICES: dict[str, Verdict] = {"a": "A", "b": "B", "tie": "tie"}


class HumanJudge:
    """One rater, one CSV file.

    If the file does not exist it is written: rows in random order, which policy is A or B is not to be seen, column `choice`
    empty. Once it is filled in (A, B or tie) the same command reads it. Empty choices count as failed, so a sheet may be handed
    in half done and completed later.

    Args:
        sheet: The file; its name is the rater's.
        template: Its question stands on every row.
        seed: Of the order of rows.
    """

    def __init__(self, sheet: Path, template: Template, *, seed: int = 0) -> None:
        self.name, self.sheet, self.template, self.seed = f"human:{sheet.stem}", sheet, template, seed
        content = sheet.read_bytes() if sheet.is_file() else b""  # the sheet is the record: an edited one is read anew
        self.identity: Mapping[str, Any] = {
            "template": template.name, "version": template.version, "template_digest": template.digest,
            "sheet": str(sheet.resolve()), "content": hashlib.sha256(content).hexdigest()[:16],
        }  # fmt: skip

    def answer(
        self,
        questions: Sequence[Question],
        on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:
        """See `suite.judges.judging.Judge`.

        Raises:
            UserError: The sheet was written just now, or a row of it cannot be read; says which and why.
        """
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
        rows = [(row_name(q), self.template.question, q.comparison.prompt, q.a, q.b, "") for q in dict.fromkeys(questions)]
        random.Random(self.seed).shuffle(rows)
        table = pd.DataFrame(rows, columns=COLUMNS)
        self.sheet.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.sheet, lambda path: table.to_csv(path, index=False, encoding="utf-8-sig"))

    def _read(self) -> dict[str, Verdict | None]:
        try:
            table = pd.read_csv(self.sheet, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
            raise UserError(f"{self.sheet}: cannot be read as CSV in UTF-8 ({error})") from error
        if absent := {"id", "choice"} - set(table.columns):
            raise UserError(f"{self.sheet}: column {', '.join(sorted(absent))} is missing")
        if "question" in table and (asked := set(table["question"]) - {self.template.question, ""}):
            raise UserError(f"{self.sheet}, question: was written for another template ({asked.pop()!r}); name another file")
        found: dict[str, Verdict | None] = {}
        for row, (name, choice) in enumerate(zip(table["id"], table["choice"], strict=True), start=2):
            word = choice.strip().lower()
            if not name and not word:  # an empty line at the end
                continue
            if word and word not in CHOICES:
                raise UserError(f"{self.sheet}, line {row}, choice: expected A, B, tie or nothing, got {choice!r}")
            if name in found:
                raise UserError(f"{self.sheet}, line {row}, id: {name} stands there twice")
            found[name] = CHOICES.get(word)
        return found


def row_name(question: Question) -> str:
    """A name that says nothing: a hash of the texts in their order."""
    texts = (question.comparison.prompt, question.a, question.b)
    return "q" + hashlib.sha256("\x00".join(texts).encode()).hexdigest()[:12]  # spreadsheets take 12e345 for a number
