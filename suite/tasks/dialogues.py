"""What users say in dialogues of any layout: their turns alone, joined to dialogues of one length, divided without overlap."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.common.errors import UserError, listed
from suite.data.fields import CHOSEN, NOTHING, PROMPT, QUESTIONS, canonical, conversation_in
from suite.tasks.hh_dialogue import SPEAKER
from suite.tasks.splits import Rows, parts_of, used
from suite.tasks.text_format import BAD_ROW, why

COLUMNS = (PROMPT, *QUESTIONS, *CHOSEN, "dialogue", "dialog", "text")
"""Names of columns in which a dialogue is looked for, in this order."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What a user says, turn by turn. The id names its first turn, whatever the white space."""

    id: str
    turns: tuple[str, ...]


def user_turns(row: Mapping[str, Any]) -> tuple[str, ...]:
    r"""The user's turns of a row: of a list of messages, of `\n\nHuman: …\n\nAssistant: …`, or one of any other text.

    What assistants and system messages say is left out. Raises ValueError, or another of `BAD_ROW`, where there is no dialogue.
    """
    columns = {canonical(str(name)): value for name, value in row.items() if value not in NOTHING}
    name = next((name for name in COLUMNS if name in columns), None)
    if name is None:
        raise ValueError(f"no column with a dialogue; the row has {listed(row) or 'nothing'}")
    talk, text = conversation_in(columns[name]), columns[name]
    if talk is not None:
        turns = [said for role, said in talk if role == "user"]
    elif not isinstance(text, str):
        raise ValueError(f"column {name}: expected text or messages, got {type(text).__name__}")
    else:
        turns = _said_by_human(text)
        if name == "instruction" and columns.get("input"):
            turns = [f"{text}\n\n{columns['input']}"]
    return tuple(turn.strip() for turn in turns if turn.strip())


def _said_by_human(text: str) -> list[str]:
    before, *rest = SPEAKER.split(text if text.startswith("\n") else f"\n\n{text}")
    if not rest:
        return [text]
    if before.strip():
        raise ValueError("text before the first speaker")
    return [said for who, said in zip(rest[::2], rest[1::2], strict=True) if who == "Human"]


def read_dialogues(
    splits: Mapping[str, Rows], turns: int, *, train: int, test: int
) -> tuple[dict[str, list[Dialogue]], dict[str, int]]:
    """Dialogues of exactly `turns` user turns for training and for testing, which have no user turn in common.

    A row is for testing if it is of the split "test" where there is one, else by the hash of its first user turn (as in
    `suite.tasks.splits`). Of rows that begin alike the longest is taken. Dialogues stand in the order of that hash; one of
    fewer user turns is followed by the next ones' until there are enough, one of more is cut. From the training dialogues all
    are left out that have a user turn of a test dialogue.

    Args:
        splits: Split → rows.
        turns: User turns of a dialogue.
        train, test: So many dialogues at most.

    Returns:
        "train" and "test" → dialogues, and counts: `rows`, what was `used` and `not needed`, what was left out, by reason.

    Raises:
        UserError: Nothing is left to train on, or fewer than two dialogues to test on.
    """
    counts: Counter[str] = Counter()
    parts: dict[str, dict[str, tuple[str, ...]]] = {"test": {}, "train": {}}
    for split, rows in used(splits).items():
        for row in rows:
            counts["rows"] += 1
            try:
                said = user_turns(row)
            except BAD_ROW as error:
                counts[why(error)] += 1
                continue
            if not said:
                counts["the user says nothing"] += 1
                continue
            name = f"dialogue-{_hash(said[0])}"
            is_test = split == "test" if "test" in splits else None
            part = parts["test" if "test" in parts_of(name, is_test=is_test) else "train"]
            counts["begins as another"] += name in part
            if len(said) > len(part.get(name, ())):
                part[name] = said
    tests, left = joined([Dialogue(name, parts["test"][name]) for name in sorted(parts["test"])], turns, test)
    counts["not needed"] += left
    seen = {_hash(turn) for dialogue in tests for turn in dialogue.turns}
    fresh = [Dialogue(n, said) for n, said in sorted(parts["train"].items()) if seen.isdisjoint(map(_hash, said))]
    counts["shares a user turn with a test dialogue"] = len(parts["train"]) - len(fresh)
    trains, left = joined(fresh, turns, train)
    counts["not needed"] += left
    if not trains or len(tests) < 2:
        raise UserError(
            f"{len(trains)} dialogues of {turns} user turns to train on and {len(tests)} to test on, at least 1 and 2 are "
            f"needed ({dict(+counts)}); use more dialogues or fewer --turns"
        )
    counts["used"] = len(parts["test"]) + len(fresh) - counts["not needed"]
    return {"train": trains, "test": tests}, dict(+counts)


def joined(dialogues: Sequence[Dialogue], turns: int, count: int) -> tuple[list[Dialogue], int]:
    """The first `count` dialogues of exactly `turns` turns that are made of these in order, each named after the first that it
    is made of; and how many of these are in none.
    """
    made: list[Dialogue] = []
    begun: list[Dialogue] = []
    taken = 0
    for number, dialogue in enumerate(dialogues, 1):
        if len(made) == count:
            break
        begun.append(dialogue)
        said = [turn for one in begun for turn in one.turns]
        if len(said) >= turns:
            made.append(Dialogue(begun[0].id, tuple(said[:turns])))
            begun, taken = [], number
    return made, len(dialogues) - taken


def _hash(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).hexdigest()[:12]
