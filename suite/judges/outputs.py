"""Files of answers → comparisons, joined by prompt. Nothing is dropped silently."""

from pathlib import Path
from typing import Any, get_args

import pandas as pd

from suite.common.errors import UserError, did_you_mean
from suite.data.comparisons import Comparison, Winner
from suite.data.readers import load_splits
from suite.judges.judging import clean, text_hash


def read_answers(source: str, column: str = "completion", *, split: str = "") -> pd.DataFrame:
    """Answers of one policy: JSONL, CSV, parquet, a folder of them or a Hub name, with the columns `prompt` and `column`.

    `prompt_id` names a prompt; without it the prompt's text does. Several answers to one prompt are told apart by their order.
    The table has the columns `prompt_id`, `sample`, `prompt` and `answer`. `split` must be given if there are several. Raises
    UserError, which says which file, row and field is wrong.
    """
    splits = load_splits(source)
    if not split and len(splits) > 1:
        raise UserError(f"{source}: has the splits {', '.join(splits)}; choose one with --split")
    chosen = split or next(iter(splits))
    if chosen not in splits:
        raise UserError(f"{source}: has no split {chosen!r}; {did_you_mean(chosen, splits)}")
    table = pd.DataFrame(list(splits[chosen]))
    for name in ("prompt", column):
        if name not in table:
            raise UserError(f"{source}: has no column {name!r}; {did_you_mean(name, map(str, table.columns))}")
        if wrong := [row for row, value in enumerate(table[name]) if not isinstance(value, str)]:
            raise UserError(f"{source}, row {wrong[0]}, {name}: expected text, got {table[name].iloc[wrong[0]]!r}")
    ids = table["prompt_id"].astype(str) if "prompt_id" in table else table["prompt"].map(lambda text: text_hash(text)[:16])
    found = pd.DataFrame({"prompt_id": ids, "prompt": table["prompt"].map(clean), "answer": table[column].map(clean)})
    found.insert(1, "sample", found.groupby("prompt_id").cumcount())
    return found


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
        side = "policy" if row["_merge"] == "left_only" else "opponent"
        raise UserError(
            f"{len(lonely)} answers have no counterpart, the first: prompt {row['prompt_id']!r}, answer {row['sample'] + 1}, "
            f"which only the {side} has; give both the same prompts"
            + (" (or --subset, if the opponent is a whole data set)" if side == "opponent" else "")
        )
    if len(differing := both[both["prompt"] != both["prompt_opponent"]]):
        raise UserError(f"prompt {differing.iloc[0]['prompt_id']!r}: its text differs between the two files")
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
        raise UserError(f"{path}: cannot be read ({error})") from error
    for name in ("prompt_id", "winner"):
        if name not in table:
            raise UserError(f"{path}: has no column {name!r}; {did_you_mean(name, map(str, table.columns))}")
    known = get_args(Winner)
    if len(wrong := table[~table["winner"].isin(known)]):
        raise UserError(
            f"{path}, row {wrong.index[0]}, winner: expected one of {', '.join(known)}, got {wrong['winner'].iloc[0]!r}"
        )
    names = [name for name in ("prompt_id", "comparison", "judge", "template", "matchup") if name in table]
    return table.assign(**{name: table[name].astype(str) for name in names})
