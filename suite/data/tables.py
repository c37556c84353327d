"""Prompts and completions as pandas tables and back. Run directories hold them as parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from suite.data.preference_data import Completion, PreferencePair, Prompt


def prompts_table(prompts: dict[str, list[Prompt]]) -> pd.DataFrame:
    """One row per prompt: `split`, `prompt_id`, `prompt_ids`, `prompt_text`."""
    rows = [(split, p.id, list(p.ids), p.text) for split, some in prompts.items() for p in some]
    return pd.DataFrame(rows, columns=["split", "prompt_id", "prompt_ids", "prompt_text"])


def read_prompts(path: Path, split: str) -> list[Prompt]:
    frame = pd.read_parquet(path)
    rows = frame[frame["split"] == split]
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
    pairs = []
    for row in frame.itertuples(index=False):
        sides = [
            Completion(by_id[row.prompt_id], tuple(map(int, ids)), text, bool(truncated))
            for ids, text, truncated in (
                (row.chosen_ids, row.chosen_text, row.chosen_truncated),
                (row.rejected_ids, row.rejected_text, row.rejected_truncated),
            )
        ]
        pairs.append(
            PreferencePair(
                *sides, row.chosen_reward, row.rejected_reward, row.reference_chosen_logps, row.reference_rejected_logps
            )
        )
    return pairs
