"""Prompts, completions and pairs as pandas tables and back: their schema, spelled once; runs keep them as parquet."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.data.preference_data import Completion, PreferencePair, Prompt, Ranking

SIDES = ("chosen", "rejected")


def prompts_table(prompts: Sequence[Prompt]) -> pd.DataFrame:
    """One row per prompt: `prompt_id`, `prompt_ids`, `prompt_text`."""
    return pd.DataFrame([(p.id, list(p.ids), p.text) for p in prompts], columns=["prompt_id", "prompt_ids", "prompt_text"])


def read_prompts(path: Path) -> list[Prompt]:
    rows = pd.read_parquet(path).itertuples(index=False)
    return [Prompt(row.prompt_id, tuple(map(int, row.prompt_ids)), row.prompt_text) for row in rows]


def completions_table(completions: Sequence[Sequence[Completion]]) -> pd.DataFrame:
    """One row per completion: `prompt_id`, `sample`, `ids`, `text`, `truncated`, `tokens`, `sampler_log_prob`."""
    rows = [
        (c.prompt.id, k, list(c.ids), c.text, c.truncated, len(c.ids), c.sampler_log_prob)
        for some in completions
        for k, c in enumerate(some)
    ]
    columns = ["prompt_id", "sample", "ids", "text", "truncated", "tokens", "sampler_log_prob"]
    return pd.DataFrame(rows, columns=columns)


def pair_row(prompt_id: str, chosen: Any, rejected: Any, *, rating: int | None = None, domain: str = "") -> dict[str, Any]:
    """One row of the pairs table: `prompt_id`, `rating` (NaN where there is none), `domain`; of each side `…_ids`, `…_text`,
    `…_truncated`, `…_reward`, `reference_…_logps`.

    What a side does not say of itself is 1 (chosen) or 0 (rejected) as reward and NaN as log π_ref; `rejected` may be None.
    """
    row: dict[str, Any] = {"prompt_id": prompt_id, "rating": math.nan if rating is None else float(rating), "domain": domain}
    for side, made, reward in (("chosen", chosen, 1.0), ("rejected", rejected, 0.0)):
        if made is not None:
            row |= {f"{side}_ids": list(made.ids), f"{side}_text": made.text, f"{side}_truncated": made.truncated}
        row |= {
            f"{side}_reward": getattr(made, "reward", reward),
            f"reference_{side}_logps": getattr(made, "reference_logps", math.nan),
        }
    return row


def _completion(row: Any, by_id: Mapping[str, Prompt], side: str = "") -> Completion:
    ids, text, truncated = (getattr(row, f"{side}{part}") for part in ("ids", "text", "truncated"))
    log_prob = float(getattr(row, "sampler_log_prob", math.nan))
    return Completion(by_id[row.prompt_id], tuple(map(int, ids)), text, bool(truncated), log_prob)


def completions_from_table(frame: pd.DataFrame, prompts: Sequence[Prompt], side: str = "") -> list[Completion]:
    """Rows of `completions_table` as they were drawn; with `side` "chosen_", these sides of rows of `pair_row`."""
    by_id = {p.id: p for p in prompts}
    return [_completion(row, by_id, side) for row in frame.itertuples(index=False)]


def pairs_from_table(frame: pd.DataFrame, prompts: Sequence[Prompt]) -> list[PreferencePair]:
    """Rows of `pair_row` as `PreferencePair`s."""
    by_id = {p.id: p for p in prompts}
    return [
        PreferencePair(
            _completion(row, by_id, "chosen_"), _completion(row, by_id, "rejected_"), row.chosen_reward, row.rejected_reward,
            row.reference_chosen_logps, row.reference_rejected_logps, domain=row.domain,
            rating=None if math.isnan(row.rating) else int(row.rating),
        )
        for row in frame.itertuples(index=False)
    ]  # fmt: skip


def rankings_from_table(frame: pd.DataFrame, prompts: Sequence[Prompt]) -> list[Ranking]:
    """Rows of the rankings table (`suite.data.labelling.label_rankings`), best first, as `Ranking`s."""
    by_id = {p.id: p for p in prompts}
    return [
        Ranking(
            tuple(_completion(row, by_id) for row in group.itertuples(index=False)), tuple(group["reward"]),
            tuple(group["reference_logps"]),
        )
        for _, group in frame.groupby("prompt_id", sort=False)
    ]  # fmt: skip
