"""Prompts and completions as pandas tables and back. Run directories hold them as parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.data.preference_data import Completion, PreferencePair, Prompt, Ranking


def prompts_table(prompts: Sequence[Prompt]) -> pd.DataFrame:
    """One row per prompt: `prompt_id`, `prompt_ids`, `prompt_text`."""
    return pd.DataFrame([(p.id, list(p.ids), p.text) for p in prompts], columns=["prompt_id", "prompt_ids", "prompt_text"])


def read_prompts(path: Path) -> list[Prompt]:
    rows = pd.read_parquet(path)
    return [
        Prompt(id_, tuple(map(int, ids)), text)
        for id_, ids, text in zip(rows["prompt_id"], rows["prompt_ids"], rows["prompt_text"], strict=True)
    ]


def completions_table(completions: Sequence[Sequence[Completion]]) -> pd.DataFrame:
    """One row per completion: `prompt_id`, `sample`, `ids`, `text`, `truncated`, `tokens`, `sampler_log_prob`."""
    rows = [
        (c.prompt.id, k, list(c.ids), c.text, c.truncated, len(c.ids), c.sampler_log_prob)
        for some in completions
        for k, c in enumerate(some)
    ]
    columns = ["prompt_id", "sample", "ids", "text", "truncated", "tokens", "sampler_log_prob"]
    return pd.DataFrame(rows, columns=columns)


def pairs_from_table(frame: pd.DataFrame, prompts: Sequence[Prompt]) -> list[PreferencePair]:
    """Rows of the pairs table (`suite.runs.stages.make_pairs`) as `PreferencePair`s."""
    by_id = {p.id: p for p in prompts}

    def side(row: Any, name: str) -> Completion:
        ids, text, truncated = (getattr(row, f"{name}_{part}") for part in ("ids", "text", "truncated"))
        return Completion(by_id[row.prompt_id], tuple(map(int, ids)), text, bool(truncated))

    return [
        PreferencePair(
            chosen=side(row, "chosen"),
            rejected=side(row, "rejected"),
            chosen_reward=row.chosen_reward,
            rejected_reward=row.rejected_reward,
            reference_chosen_logps=row.reference_chosen_logps,
            reference_rejected_logps=row.reference_rejected_logps,
        )
        for row in frame.itertuples(index=False)
    ]


def rankings_from_table(frame: pd.DataFrame, prompts: Sequence[Prompt]) -> list[Ranking]:
    """Rows of the rankings table (`suite.data.labelling.label_rankings`), best first, as `Ranking`s."""
    by_id = {p.id: p for p in prompts}

    def completion(row: Any) -> Completion:
        return Completion(by_id[row.prompt_id], tuple(map(int, row.ids)), row.text, bool(row.truncated))

    return [
        Ranking(
            completions=tuple(completion(row) for row in group.itertuples(index=False)),
            rewards=tuple(group["reward"]),
            reference_logps=tuple(group["reference_logps"]),
        )
        for _, group in frame.groupby("prompt_id", sort=False)
    ]
