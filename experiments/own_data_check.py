"""A look at anybody's preference data before anything is trained on them. Not a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from suite.errors import UserError

FEWEST = 4
"""Test prompts that there must be."""


def examine(study: Any) -> tuple[dict[str, int], list[str]]:
    """How many examples each part has, and what `suite doctor` says of the texts as methods will see them; prints it.

    Raises:
        UserError: There are too few to train on or to measure with, or the gold reward fails on them.
    """
    from transformers import AutoTokenizer

    from suite.data.doctor import examine as examine_pairs
    from suite.data.doctor import lines_of
    from suite.data.text_parts import pairs_of, read_part, read_rows
    from suite.data.text_tasks import Limits, load_task
    from suite.sources import resolve_model

    task, tokenizer = load_task("own_data"), AutoTokenizer.from_pretrained(resolve_model(study.model)[0])
    splits = read_rows(task, study.pairs, rows=study.rows)
    pairs = pairs_of(study.pairs, splits, tokenizer)
    limits = {"max_prompt_tokens": study.max_prompt_tokens, "max_new_tokens": study.max_new_tokens}
    lines = [
        f"{sum(not pair.fault for pair in pairs):,} pairs of {study.pairs}",
        *lines_of(examine_pairs(pairs, tokenizer, **limits)),
    ]
    print("\n".join(lines))
    talks = any(row.get("chosen") and not isinstance(row["chosen"], str) for rows in splits.values() for row in rows)
    told = len(lines)
    if talks and not getattr(tokenizer, "chat_template", None):
        lines.append("note     conversations are written as Human: … Assistant: …, for want of a chat template")
    beside = {"train": {"validation": study.test_prompts}, "methods": {"judge": study.judge_pairs}, "all": {}}[study.part]
    sizes = {study.part: study.train_pairs, **beside, "test": study.test_prompts}
    answers = read_rows(task, study.answers, rows=study.rows) if study.answers else None
    counts = {}
    for part, size in sizes.items():
        source = answers if answers and part == "test" else splits
        tests = answers if part != "test" else None
        found, _ = read_part(
            task, source, part, size, tokenizer, Limits(**limits), single_turn=study.single_turn, tests=tests  # type: ignore[arg-type]
        )  # fmt: skip
        counts[part] = len(found)
        if part == "test" and len(found) < FEWEST:
            raise UserError(
                f"--pairs {study.pairs}: only {len(found)} test prompts; {FEWEST} or more are needed: use more rows"
            )
        if part == "test" and study.gold_reward:
            lines.append(reward_and_labels(study, [example for example in found if example.rejected]))
    lines.append("used: " + ", ".join(f"{part} {count:,}" for part, count in counts.items()))
    print("\n".join(lines[told:]) + "\n")
    return counts, lines


def reward_and_labels(study: Any, examples: Sequence[Any]) -> str:
    """How often the gold reward prefers the chosen answer, in a line.

    Raises:
        UserError: The reward fails.
    """
    from suite.maths.statistics import clustered_share_interval
    from suite.rewards.open_reward import open_reward
    from suite.runs.answer_study import resolve_reward

    if not examples:
        return "the reward could not be held against labels: no test prompt has two answers"
    prompts = [example.prompt.text for example in examples]
    reward = open_reward(resolve_reward(study.gold_reward)[0], device=study.device)
    try:
        chosen, rejected = (
            [float(value) for value in reward(prompts, [getattr(example, side).text for example in examples])]
            for side in ("chosen", "rejected")
        )
    except Exception as error:  # anybody's code
        raise UserError(f"--reward {study.gold_reward}: fails on test pairs ({type(error).__name__}: {error})") from error
    if not len(chosen) == len(rejected) == len(prompts) or not all(map(math.isfinite, [*chosen, *rejected])):
        raise UserError(f"--reward {study.gold_reward}: expected one finite number per completion")
    right = clustered_share_interval([(a > b) + (a == b) / 2 for a, b in zip(chosen, rejected, strict=True)], prompts)
    return (
        f"your reward prefers the chosen answer in {right.mean:.1%} of {len(examples)} test pairs [{right.low:.1%}, "
        f"{right.high:.1%}]"
    )
