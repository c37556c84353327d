"""Stages `pairs` and `reference_log_probs`: preferences with log π_ref as columns, labelled samples or given by the task."""

import json

import pandas as pd

from suite.common.errors import UserError
from suite.data.labelling import label_pairs, label_rankings
from suite.data.parquet import SIDES, pairs_from_table
from suite.engine.store import Run
from suite.study.stages.inputs import prompts_of, reference_policy
from suite.training.loop import autocast


def label_samples(run: Run) -> None:
    """Label all pairs of completions of each training prompt by the gold reward, and rank them."""
    config, parts = run.spec.config, []
    for name in sorted(name for name in run.spec.inputs if name.startswith("samples")):
        samples = pd.read_parquet(run.input(name) / "samples.parquet")
        scores = pd.read_parquet(run.input(name.replace("samples", "scores")) / "scores.parquet")
        parts.append(samples.merge(scores, on=["prompt_id", "sample"], validate="one_to_one"))
    completions = pd.concat(parts, ignore_index=True).rename(columns={"score": "reward"})
    keywords = {name: config[name] for name in ("labels", "scale", "seed")}
    pairs, counts = label_pairs(completions, noise=config["noise"], **keywords)
    if not len(pairs):
        raise UserError(f"no preference pairs are left of {counts}; use more prompts or longer completions")
    run.write_table("pairs.parquet", pairs)
    if not config["noise"]:  # a ranking has no turned pairs
        rankings, more_counts = label_rankings(completions, **keywords)
        run.write_table("rankings.parquet", rankings)
        counts |= more_counts
    (run.directory / "counts.json").write_text(json.dumps(counts))


def add_reference_log_probs(run: Run) -> None:
    """The pairs that the task gave, with log π_ref of both answers."""
    reference = reference_policy(run)
    frame = pd.read_parquet(run.input("data") / "pairs.parquet")
    pairs = pairs_from_table(frame, prompts_of(run, "data"))
    with autocast(reference.device, run.spec.config["precision"]):
        for side in SIDES:
            frame[f"reference_{side}_logps"] = reference.log_prob([getattr(pair, side) for pair in pairs]).numpy()
    run.costs["tokens_scored"] = sum(len(getattr(pair, side).ids) for pair in pairs for side in SIDES)
    run.write_table("pairs.parquet", frame)
