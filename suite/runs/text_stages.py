"""The stages of the win-rate experiments: data set → reference → pairs with log π_ref → policies → answers.

Training and reward modelling are those of `suite.runs.stages`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from suite.data.preference_data import Completion
from suite.data.tables import completions_table, pairs_from_table, prompts_table, read_prompts
from suite.data.text_parts import read_part, read_rows
from suite.data.text_tasks import Limits, load_task
from suite.interfaces import TrainingData
from suite.registry import load_method
from suite.runs import stages
from suite.runs.run_store import Run
from suite.runs.stages import Stage, load_policy, reference_policy, snapshots
from suite.training.loop import autocast
from suite.training.supervised import SFT

SIDES = ("chosen", "rejected")


def read_texts(run: Run) -> None:
    """One part of a data set: prompts with their reference answers, and pairs where there are rejected answers."""
    from transformers import AutoTokenizer

    config, where = run.spec.config, run.spec.where
    task = load_task(config["task"])
    tokenizer = AutoTokenizer.from_pretrained(where["reference"], local_files_only=True)
    splits = read_rows(task, where["source"], rows=config["rows"])
    tests = read_rows(task, where["tests"], rows=config["rows"]) if where["tests"] else None
    limits = Limits(config["max_prompt_tokens"], config["max_new_tokens"])
    examples, counts = read_part(
        task, splits, config["part"], config["size"], tokenizer, limits, single_turn=config["single_turn"], tests=tests
    )
    first = {example.prompt.id: example for example in reversed(examples)}  # the first of each prompt
    ordered = [first[name] for name in dict.fromkeys(example.prompt.id for example in examples)]
    prompts = prompts_table([example.prompt for example in ordered])
    run.write_table("prompts.parquet", prompts.assign(
        shown=[example.shown for example in ordered], answer=[example.answer for example in ordered],
        answer_cut=[example.chosen.text for example in ordered],
    ))  # fmt: skip
    rows = [
        {
            "prompt_id": example.prompt.id, "chosen_reward": 1.0, "rejected_reward": 0.0,  # no gold reward is known
            **{f"{side}_{name}": value for side in SIDES if (made := getattr(example, side)) is not None
               for name, value in (("ids", list(made.ids)), ("text", made.text), ("truncated", made.truncated))},
            **{f"reference_{side}_logps": float("nan") for side in SIDES},
        }
        for example in examples
    ]  # fmt: skip
    run.write_table("pairs.parquet", pd.DataFrame(rows))
    (run.directory / "counts.json").write_text(json.dumps(counts))


def fine_tune_on_answers(run: Run) -> None:
    """π_ref: the model fine-tuned on chosen or reference answers, all its weights."""
    config = run.spec.config
    base = load_policy(run, Path(run.spec.where["reference"]))
    prompts = {p.id: p for p in read_prompts(run.input("texts") / "prompts.parquet")}
    rows = pd.read_parquet(run.input("texts") / "pairs.parquet")
    texts = [
        Completion(prompts[row.prompt_id], tuple(map(int, row.chosen_ids)), row.chosen_text, bool(row.chosen_truncated))
        for row in rows.itertuples(index=False)
    ]
    policy = SFT().train(TrainingData(texts=texts), base, TypeAdapter(SFT.Config).validate_python(config["config"]), run)
    run.costs["tokens_trained"] = getattr(policy, "tokens_trained", 0)


def add_reference_log_probs(run: Run) -> None:
    """The pairs of a part with log π_ref of both answers."""
    reference = reference_policy(run)
    prompts = read_prompts(run.input("texts") / "prompts.parquet")
    frame = pd.read_parquet(run.input("texts") / "pairs.parquet")
    pairs = pairs_from_table(frame, prompts)
    with autocast(reference.device, run.spec.config["precision"]):
        for side in SIDES:
            frame[f"reference_{side}_logps"] = reference.log_prob([getattr(pair, side) for pair in pairs]).numpy()
    run.costs["tokens_scored"] = sum(len(getattr(pair, side).ids) for pair in pairs for side in SIDES)
    run.write_table("pairs.parquet", frame)


def make_prompted(run: Run) -> None:
    """A policy that is not trained: the model as it came, prompted."""
    config, base = run.spec.config, reference_policy(run)
    method = load_method(config["method"])()
    pairs = pairs_from_table(
        pd.read_parquet(run.input("texts") / "pairs.parquet"), read_prompts(run.input("texts") / "prompts.parquet")
    )
    data = TrainingData(pairs=pairs, max_new_tokens=config["max_new_tokens"])
    method.train(data, base, TypeAdapter(method.Config).validate_python(config["config"]), run)


def draw_answers(run: Run) -> None:
    """A policy's answers to test prompts at one temperature, with log π_ref."""
    config, reference = run.spec.config, reference_policy(run)
    policy = reference
    if "policy" in run.spec.inputs:
        policy = load_policy(run, snapshots(run.input("policy"))[config["snapshot"]])
        if hasattr(policy, "base"):  # prompting: drawn where and as the others are
            policy.base.model.to(reference.device)
            policy.base.sampler_dtype = reference.sampler_dtype
    prompts = read_prompts(run.input("prompts") / "prompts.parquet")
    with run.progress(len(prompts) * config["num_samples"], "completions") as bar:
        drawn = policy.sample(
            prompts, num_samples=config["num_samples"], max_new_tokens=config["max_new_tokens"],
            temperature=config["temperature"], seed=config["seed"], on_batch=bar.update,
        )  # fmt: skip
    frame = completions_table(drawn)
    with autocast(reference.device, config["sampler_dtype"]):
        frame["reference_logps"] = reference.log_prob([c for some in drawn for c in some]).numpy()
    run.costs["tokens_sampled"] = int(frame["tokens"].sum())
    run.write_table("completions.parquet", frame)


TEXTS = ("suite.data.text_parts", "suite.data.tables")
POLICIES = ("suite.data.tables", "suite.policies.causal_lm", "suite.training.loop")
STAGES: dict[str, Stage] = {
    **stages.STAGES,
    "texts": Stage(read_texts, TEXTS),
    "sft_on_answers": Stage(fine_tune_on_answers, (*POLICIES, "suite.training.supervised")),
    "reference_log_probs": Stage(add_reference_log_probs, POLICIES),
    "prompting": Stage(make_prompted, POLICIES),
    "answers": Stage(draw_answers, POLICIES),
}
"""Every stage there is."""
