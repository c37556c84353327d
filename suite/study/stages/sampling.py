"""Stages `samples` and `scores`: completions of a policy, drawn once whoever measures them, and their rewards."""

import pandas as pd

from suite.data.parquet import completions_from_table, completions_table
from suite.data.preference_data import Completion
from suite.engine.store import Run
from suite.evaluation.reward_kl import check_sampler, sampler_kl, score
from suite.maths.kl import MAX_SAMPLER_KL
from suite.study.stages.inputs import gold_reward, learned_reward, load_policy, prompts_of, reference_policy, snapshots
from suite.training.loop import autocast

CHECKED = 64
"""Completions of which it is checked that they come from the policy that is scored."""


def draw_samples(run: Run) -> None:
    """Completions of each split's prompts by the reference or by one snapshot; with log π_ref where it is asked for."""
    config, reference = run.spec.config, reference_policy(run)
    policy, step = reference, 0
    if "policy" in run.spec.inputs:
        snapshot = snapshots(run.input("policy"))[config["snapshot"]]
        policy, step = load_policy(run, snapshot), int(snapshot.name.removeprefix("step-"))
        if hasattr(policy, "base"):  # prompting: drawn where and as the others are
            policy.base.model.to(reference.device)
            policy.base.sampler_dtype, policy.base.sampler = reference.sampler_dtype, reference.sampler
    splits = {name: prompts_of(run, name) for name in ("train", "validation", "test") if name in run.spec.inputs}
    first, last = config["prompts"] or (0, None)
    parts, completions = [], list[Completion]()
    with run.progress(sum(map(len, splits.values())) * config["num_samples"], "completions") as bar:
        for split, prompts in splits.items():
            keywords = {name: config[name] for name in ("num_samples", "max_new_tokens", "temperature", "seed")}
            drawn = policy.sample(prompts[first:last], **keywords, on_batch=bar.update)
            if policy.has_log_prob and config["temperature"] == 1:
                found = sampler_kl(policy, [some[0] for some in drawn[:CHECKED]])
                engine = getattr(policy, "sampler", "own") != "own" and policy.samples_lower  # rounded weights: only told
                if not found <= MAX_SAMPLER_KL and policy.sampler_dtype is not None and not engine:
                    policy.sampler_dtype = None  # again in the scorer's precision
                    drawn = policy.sample(prompts[first:last], **keywords)
                    found = sampler_kl(policy, [some[0] for some in drawn[:CHECKED]])
                if not engine:
                    check_sampler(found)
                run.costs["sampler_kl"] = max(found, run.costs.get("sampler_kl", 0.0))
            parts.append(completions_table(drawn).assign(split=split, step=step))
            completions += [c for some in drawn for c in some]
    frame = pd.concat(parts, ignore_index=True)
    if precision := config["reference_log_probs"]:
        with autocast(reference.device, precision):
            frame["reference_logps"] = reference.log_prob(completions).numpy()
    run.costs["tokens_sampled"] = int(frame["tokens"].sum())
    run.write_table("samples.parquet", frame)


def score_samples(run: Run) -> None:
    """The gold reward, or the learned one, of the first `num_samples` completions of each prompt that another run drew."""
    config = run.spec.config
    frame = pd.read_parquet(run.input("samples") / "samples.parquet")
    frame = frame[frame["sample"] < config["num_samples"]]
    completions = completions_from_table(frame, prompts_of(run))
    columns = frame[["prompt_id", "sample"]]
    if config["reward"] == "gold":
        rewards, odds = score(gold_reward(run), completions)
        run.write_table("scores.parquet", columns.assign(score=rewards, log_odds=odds))
        return
    model = learned_reward(run)
    with autocast(model.device, config["precision"]):
        values = model([c.prompt.text for c in completions], [c.text for c in completions])
    run.write_table("scores.parquet", columns.assign(score=values))
