"""Stage `measurements`: an evaluator's numbers of one policy's samples."""

import pandas as pd

from suite.common.registry import load
from suite.engine.store import Run
from suite.interfaces import Context
from suite.study.stages.inputs import gold_reward, load_policy, reference_policy, snapshots


def measure_samples(run: Run) -> None:
    """Leave `measurements.parquet`: `split`, `prompt_id`, `sample`, `metric`, `value`."""
    config, evaluator = run.spec.config, load(run.spec.config["evaluator"], "evaluator")(**run.spec.config["settings"])
    samples, parts = pd.read_parquet(run.input("samples") / "samples.parquet"), []
    for split, part in samples.groupby("split", sort=False):
        prompts = pd.read_parquet(run.input(str(split)) / "prompts.parquet")
        parts.append(part.merge(prompts, on="prompt_id", how="left", validate="many_to_one"))
    reference = reference_policy(run)
    policy = load_policy(run, snapshots(run.input("policy"))[config["snapshot"]]) if "policy" in run.spec.inputs else reference
    context = Context(
        policy=policy, reference=reference, temperature=config["temperature"], seed=config["seed"],
        gold_reward=gold_reward(run) if "gold_reward" in evaluator.needs else None,
    )  # fmt: skip
    found = evaluator.measure(pd.concat(parts, ignore_index=True).assign(point=0), context)
    run.write_table("measurements.parquet", found.drop(columns="point"))
