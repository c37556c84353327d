"""Files of answers → comparisons, joined by prompt. Nothing is dropped silently."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from suite.common.errors import UserError, did_you_mean
from suite.data.comparisons import Comparison, Winner
from suite.data.fields import conversation_in
from suite.data.readers import LAST_TURN, load_splits
from suite.judges.judging import clean, shown, text_hash

OTHER_NAMES = {"prompt": "instruction", "completion": "output"}
"""What alpaca_eval calls them, where there is no column of our name."""
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
"""Role of a message → who speaks in a dialogue that is written as one text."""


def read_answers(source: str, column: str = "completion", *, split: str = "") -> pd.DataFrame:
    """Answers of one policy: JSON, JSONL, CSV, parquet, a folder of them or a Hub name, with columns `prompt` and `column`.

    Of a conversation the last message is the answer, and the messages of a prompt are one text; numbers are text, and nothing
    is the empty answer. The columns of alpaca_eval (`instruction`, `output`, `generator`) are known. `prompt_id` names a
    prompt; without it the prompt's text does. Several answers to one prompt are told apart by their order.

    The table has the columns `prompt_id`, `sample`, `prompt` and `answer`. `split` must be given if there are several. Raises
    UserError, which says which file, row and field is wrong.
    """
    table, where = _rows(source, split), shown(source)
    names = [OTHER_NAMES[name] if name not in table and OTHER_NAMES.get(name) in table else name for name in ("prompt", column)]
    for name in names:
        if name not in table:
            raise UserError(f"{where}: has no column {shown(name)!r}; {shown(did_you_mean(name, table))}")
    if names[0] == "instruction" and len(whose := set(table.get("generator", ()))) > 1:
        raise UserError(f"{where}, generator: answers of {len(whose)} models; keep those of one, in a file of its own")
    prompts, answers = _texts(table, names[0], _as_prompt, where), _texts(table, names[1], _as_answer, where)
    if names[0] == "instruction" and "input" in table:  # the text that the instruction is about
        more = _texts(table, "input", _as_answer, where)
        prompts = [f"{text}\n\n{about}" if about else text for text, about in zip(prompts, more, strict=True)]
    given = _texts(table, "prompt_id", _as_answer, where) if "prompt_id" in table else [""] * len(prompts)
    ids = [name or text_hash(text)[:16] for name, text in zip(given, prompts, strict=True)]
    found = pd.DataFrame({"prompt_id": ids, "prompt": prompts, "answer": answers})
    if len(several := found[found["prompt"] != found.groupby("prompt_id")["prompt"].transform("first")]):
        row = several.index[0]
        raise UserError(
            f"{where}, row {row}, prompt_id: {shown(ids[row], 60)!r} is the name of another prompt too; give each its own"
        )
    found.insert(1, "sample", found.groupby("prompt_id").cumcount())
    return found


def _rows(source: str, split: str) -> pd.DataFrame:
    """The table that is meant, each value as the file has it."""
    splits = load_splits(source)
    if not split and len(splits) > 1:
        raise UserError(f"{shown(source)}: has the splits {', '.join(splits)}; choose one with --split")
    chosen = split or next(iter(splits))
    if chosen not in splits:
        raise UserError(f"{shown(source)}: has no split {chosen!r}; {did_you_mean(chosen, splits)}")
    return pd.DataFrame(list(splits[chosen]), dtype=object)


def _texts(table: Any, name: str, text_of: Callable[[Any], str], where: str) -> list[str]:
    found = []
    for row, value in enumerate(table[name]):
        try:
            found.append(clean(text_of(value)))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            why = str(error) if type(error) is ValueError else "expected text or a conversation"
            raise UserError(f"{where}, row {row}, {shown(name)}: {why}, got {shown(repr(value), 80)}") from None
    return found


def _as_answer(value: Any) -> str:
    """Text as it is, a number as text, nothing as no text, and of a conversation the last message."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and conversation_in(value) is None:
        return value
    if isinstance(value, int | float):
        return str(int(value)) if value == value // 1 and not isinstance(value, bool) else str(value)
    talk = conversation_in(value) or []
    if not talk:
        raise ValueError("expected text or a conversation")
    if talk[-1][0] != "assistant":
        raise ValueError("the conversation does not end with an answer")
    return talk[-1][1]


def _as_prompt(value: Any) -> str:
    """The same text for a question, whether it stands alone or as the only message; a dialogue as in Anthropic's HH."""
    if value is None:
        raise ValueError("expected text")
    talk = None if isinstance(value, (int, float)) else conversation_in(value)
    if talk is None:
        return _as_answer(value)
    if len(talk) == 1:
        return talk[0][1]
    return "".join(f"\n\n{SPEAKERS[role]}: {text}" for role, text in talk) + LAST_TURN


def join(policy: pd.DataFrame, opponent: pd.DataFrame, *, subset: bool = False) -> list[Comparison]:
    """Two tables of `read_answers` side by side, in the policy's order; one reference answer serves all answers to its prompt.

    With `subset` the opponent may have prompts that the policy has not, such as a whole data set. Raises UserError that names a
    prompt that only one side has, or whose text differs.
    """
    keys = ["prompt_id", "sample"]
    if subset:
        opponent = opponent[opponent["prompt_id"].isin(policy["prompt_id"])]
    if not opponent["sample"].any() and policy["sample"].any():
        lonely = opponent[~opponent["prompt_id"].isin(policy["prompt_id"])]
        served = policy[keys].merge(opponent.drop(columns="sample"), on="prompt_id")
        opponent = pd.concat([served, lonely])
    both = policy.merge(opponent, on=keys, how="outer", suffixes=("", "_opponent"), indicator=True, sort=False)
    if len(lonely := both[both["_merge"] != "both"]):
        row = lonely.iloc[0]
        side, name = "policy" if row["_merge"] == "left_only" else "opponent", shown(row["prompt_id"], 60)
        raise UserError(
            f"{len(lonely)} answers have no counterpart, the first: prompt {name!r}, answer {row['sample'] + 1}, "
            f"which only the {side} has; give both the same prompts"
            + (" (or --subset, if the opponent is a whole data set)" if side == "opponent" else "")
        )
    if len(differing := both[both["prompt"] != both["prompt_opponent"]]):
        raise UserError(f"prompt {shown(differing.iloc[0]['prompt_id'], 60)!r}: its text differs between the two files")
    ordered = policy.merge(both[[*keys, "answer_opponent"]], on=keys)
    columns = ["prompt_id", "prompt", "answer", "answer_opponent", "sample"]
    return [Comparison(*row) for row in ordered[columns].itertuples(index=False, name=None)]


def read_verdicts(path: Path) -> pd.DataFrame:
    """A table of verdicts (CSV, JSONL or parquet) with the columns `prompt_id` and `winner`, as `suite judge run` writes it.
    Raises UserError if it is unreadable, a column is missing or a winner has no meaning; says where.
    """
    readers: dict[str, Any] = {
        ".csv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False), ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False),
    }  # fmt: skip
    if path.suffix not in readers:
        raise UserError(f"{path}: unknown ending; use one of {', '.join(readers)}")
    try:
        table = readers[path.suffix](path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({shown(error)})") from error
    for name in ("prompt_id", "winner"):
        if name not in table:
            raise UserError(f"{path}: has no column {name!r}; {shown(did_you_mean(name, map(str, table.columns)))}")
    known = get_args(Winner)
    if len(wrong := table[~table["winner"].isin(known)]):
        got = shown(repr(wrong["winner"].iloc[0]), 60)
        raise UserError(f"{path}, row {wrong.index[0]}, winner: expected one of {', '.join(known)}, got {got}")
    names = [name for name in ("prompt_id", "comparison", "judge", "template", "matchup") if name in table]
    return table.assign(**{name: table[name].astype(str) for name in names})
