"""Preference pairs in the formats that TRL's trainers read, and back."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from suite.data.chat_template import end_ids
from suite.data.parquet import SIDES
from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.data.ratings import rating_of

Form = Literal["preference", "unpaired", "prompts"]


def to_trl(pairs: Sequence[PreferencePair], form: Form = "preference") -> list[dict[str, Any]]:
    """Rows for `datasets.Dataset.from_list`, in TRL's standard (text) format.

    The texts joined may tokenise otherwise than the pairs' own tokens, and TRL ends every completion with EOS; so the rows of
    "preference" also hold the tokens (`prompt_ids`, `chosen_ids`, `rejected_ids`), rewards, log π_ref, and the rating and the
    domain of pairs that have one, which `from_trl` reads and TRL does not.

    Args:
        pairs: To be exported.
        form: "preference": `prompt`, `chosen`, `rejected` (DPO, reward models); "unpaired": `prompt`, `completion`, `label`
            (KTO); "prompts": `prompt` (GRPO, RLOO), each once.
    """
    if form == "prompts":
        return [{"prompt": text} for text in dict.fromkeys(pair.chosen.prompt.text for pair in pairs)]
    if form == "unpaired":
        return [
            {"prompt": pair.chosen.prompt.text, "completion": getattr(pair, side).text, "label": side == "chosen"}
            for pair in pairs
            for side in SIDES
        ]
    rows = []
    for pair in pairs:
        prompt = pair.chosen.prompt
        row: dict[str, Any] = {"prompt": prompt.text, "prompt_id": prompt.id, "prompt_ids": list(prompt.ids)}
        for side in SIDES:
            made = getattr(pair, side)
            row |= {side: made.text, f"{side}_ids": list(made.ids), f"score_{side}": getattr(pair, f"{side}_reward"),
                    f"reference_{side}_logps": getattr(pair, f"reference_{side}_logps")}  # fmt: skip
        row |= {} if pair.rating is None else {"rating": pair.rating}
        rows.append(row | ({"domain": pair.domain} if pair.domain else {}))
    return rows


def from_trl(rows: Iterable[Mapping[str, Any]], tokenizer: Any) -> list[PreferencePair]:
    """Pairs of rows with `prompt`, `chosen`, `rejected`: exactly those that were exported, if the rows hold their tokens.

    Other rows are tokenised, prompt and completions apart, and every completion ends with EOS. Other formats than this one are
    read by the task own_data.

    Raises:
        ValueError: A row without one of the three; names it.
    """
    pairs = []
    for number, row in enumerate(rows):
        if absent := [name for name in ("prompt", *SIDES) if not isinstance(row.get(name), str)]:
            raise ValueError(f"row {number}: no text in {', '.join(absent)}; expected prompt, chosen and rejected")
        given = row.get("prompt_ids")
        ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"] if given is None else given
        prompt = Prompt(str(row.get("prompt_id") or f"row-{number}"), tuple(map(int, ids)), row["prompt"])
        chosen, rejected = (_completion(row, side, prompt, tokenizer) for side in SIDES)
        rewards = (_number(row.get(f"score_{side}"), float(side == "chosen")) for side in SIDES)
        logps = (_number(row.get(f"reference_{side}_logps"), math.nan) for side in SIDES)
        rating = rating_of(row.get("rating"))
        rated, domain = None if math.isnan(rating) else int(rating), str(row.get("domain") or "")
        pairs.append(PreferencePair(chosen, rejected, *rewards, *logps, rating=rated, domain=domain))
    return pairs


def _number(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value)


def _completion(row: Mapping[str, Any], side: str, prompt: Prompt, tokenizer: Any) -> Completion:
    ids, ends = row.get(f"{side}_ids"), end_ids(tokenizer)
    ids = [*tokenizer(row[side], add_special_tokens=False)["input_ids"], ends[0]] if ids is None else list(map(int, ids))
    return Completion(prompt, tuple(ids), row[side], truncated=ids[-1] not in ends)
