"""Stage `sft`: the reference policy, fine-tuned before everything else where it is not given ready."""

from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from suite.data.parquet import completions_from_table
from suite.engine.store import Run
from suite.interfaces import TrainingData
from suite.methods.supervised import SFT
from suite.study.stages.data import reading_of
from suite.study.stages.inputs import load_policy, prompts_of


def fine_tune(run: Run) -> None:
    """Maximum likelihood on the chosen or reference answers of the input `texts`, or on the task's own texts."""
    config = run.spec.config
    if "texts" in run.spec.inputs:
        rows = pd.read_parquet(run.input("texts") / "pairs.parquet")
        texts = completions_from_table(rows, prompts_of(run, "texts"), side="chosen_")
    else:
        task, reading = reading_of(run)
        texts = task.texts(config["texts"], config["max_tokens"], reading)
    base = load_policy(run, Path(run.spec.where["model"]))
    policy = SFT().train(TrainingData(texts=texts), base, TypeAdapter(SFT.Config).validate_python(config["config"]), run)
    run.costs["tokens_trained"] = getattr(policy, "tokens_trained", 0)
