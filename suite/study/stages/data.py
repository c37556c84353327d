"""Stage `data`: prompts of one split of a task, with the answers and preferences that its data give."""

import json
from pathlib import Path

import pandas as pd

from suite.common.registry import load
from suite.data.parquet import pair_row, prompts_table
from suite.data.tokenizers import load_tokenizer
from suite.engine.store import Run
from suite.interfaces import Reading, Task
from suite.study.stages.inputs import load_policy


def reading_of(run: Run) -> tuple[Task, Reading]:
    """The task of a run, and where it reads."""
    config, where = run.spec.config, run.spec.where
    folder = Path(where["model"])
    given = {
        name: config[name]
        for name in ("max_prompt_tokens", "max_new_tokens", "rows", "single_turn", "seed", "draw")
        if name in config
    }
    weights = tuple(config.get("weights", ()))
    reading = Reading(
        source=where["source"], tests=where.get("tests"), model=folder, load_policy=lambda: load_policy(run, folder),
        tokenizer=load_tokenizer(folder), texts=config.get("sft_texts", 0), weights=weights, **given,
    )  # fmt: skip
    return load(config["task"], "task"), reading


def read_data(run: Run) -> None:
    """Leave `prompts.parquet`, `counts.json` and, where examples carry answers, `pairs.parquet` without log π_ref."""
    task, reading = reading_of(run)
    config = run.spec.config
    examples, counts = task.examples(config["split"], config["size"], reading)
    first = {example.prompt.id: example for example in reversed(examples)}  # the first of each prompt
    ordered = [first[name] for name in dict.fromkeys(example.prompt.id for example in examples)]
    prompts = prompts_table([example.prompt for example in ordered])
    run.write_table("prompts.parquet", prompts.assign(
        shown=[example.shown for example in ordered], answer=[example.answer for example in ordered],
        answer_cut=["" if example.chosen is None else example.chosen.text for example in ordered],
    ))  # fmt: skip
    if any(example.chosen is not None for example in examples):
        run.write_table("pairs.parquet", pd.DataFrame([
            pair_row(e.prompt.id, e.chosen, e.rejected, rating=e.rating, domain=e.domain) for e in examples
        ]))  # fmt: skip
    (run.directory / "counts.json").write_text(json.dumps(counts))
