"""A task made of texts: preference data or reference answers in one format, read for whoever asks."""

from dataclasses import dataclass

from suite.common.errors import UserError
from suite.data.preference_data import Completion
from suite.data.readers import names_of
from suite.interfaces import Example, Reading, Split
from suite.tasks.splits import read_part, read_rows
from suite.tasks.text_format import Limits, TextFormat


@dataclass(frozen=True)
class TextTask:
    """See `suite.interfaces.Task`.

    Attributes:
        form: How its rows are read.
        template: What a judge is asked (`suite.judges.templates`).
        reference_answer: What the answers are, in words.
        pairs: Hub name of the preference data of the paper; empty if the task has none.
        answers: Hub name of prompts with reference answers; empty if the chosen answers of `pairs` are the references.
        on_chosen: The reference is fine-tuned on chosen answers, and called Preferred-FT.
    """

    form: TextFormat
    template: str
    reference_answer: str
    pairs: str = ""
    answers: str = ""
    on_chosen: bool = False
    gives_pairs: bool = True
    gold_reward: str | None = None

    @property
    def name(self) -> str:
        """That of the format."""
        return self.form.name

    def examples(self, split: Split, size: int, reading: Reading) -> tuple[list[Example], dict[str, int]]:
        """See `suite.tasks.splits.read_part`."""
        if not reading.source:
            raise UserError(f"task {self.name}: name the data (--pairs): a Hub name, a folder or a file")
        splits = read_rows(self.form, reading.source, rows=reading.rows)
        tests = read_rows(self.form, reading.tests, rows=reading.rows) if reading.tests else None
        limits = Limits(reading.max_prompt_tokens, reading.max_new_tokens)
        shares = dict(zip(names_of(reading.source), reading.weights, strict=True)) if reading.weights else None
        return read_part(
            self.form, splits, split, size, reading.tokenizer, limits, single_turn=reading.single_turn, tests=tests,
            shares=shares,
        )  # fmt: skip

    def texts(self, size: int, max_tokens: int, reading: Reading) -> list[Completion]:
        """None: the reference is fitted to chosen or reference answers."""
        raise UserError(f"task {self.name} has no texts of its own: its reference is fine-tuned on answers")
