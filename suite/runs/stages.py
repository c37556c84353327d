"""The study in order, one function each: reference → prompts → completions → pairs → trained policy → evaluation.

A stage reads its inputs' directories and writes its own; what decides its result is in `run.spec.config`.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import TypeAdapter

from suite.data.labelling import label_pairs, label_rankings
from suite.data.reviews import load_reviews
from suite.data.tables import completions_table, pairs_from_table, prompts_table, rankings_from_table, read_prompts
from suite.data.tasks import imdb_sentiment
from suite.errors import UserError
from suite.evaluation.reward_kl import (
    MAX_SAMPLER_KL,
    check_sampler,
    check_step_0,
    evaluate_reward_kl,
    sampler_kl,
    score,
)
from suite.files import write_atomically
from suite.interfaces import RewardFunction, TrainingData
from suite.policies.causal_lm import CausalLMPolicy
from suite.registry import load_method
from suite.rewards.open_reward import open_reward
from suite.rewards.reward_model import RewardModel
from suite.runs.code_hash import code_hash
from suite.runs.run_store import Run
from suite.training.loop import autocast
from suite.training.reward_modeling import RewardModelConfig, fit_reward_model
from suite.training.supervised import SFT

PROVIDED = frozenset({"pairs", "rankings", "prompts", "reward", "gold_reward"})
"""The fields of `TrainingData` that `train_policy` fills in."""


def reference_policy(run: Run) -> Any:
    """π_ref: the fine-tuned model of the `sft` stage if there is one, else the model that the study names."""
    where = run.spec.where
    directory = snapshots(run.input("sft"))[-1] if "sft" in run.spec.inputs else Path(where["reference"])
    return load_policy(run, directory)


def load_policy(run: Run, directory: Path) -> Any:
    """A causal language model, or whatever class the snapshot says it is."""
    kind = directory / "policy_class"
    if kind.exists() and (cls := pkgutil.resolve_name(kind.read_text())) is not CausalLMPolicy:
        return cls.load(directory)
    config = run.spec.config
    dtype = getattr(torch, config.get("sampler_dtype", "float32"))  # evaluation names none: fp32
    rank, device = config.get("lora_rank", 0), run.spec.where.get("device", "cpu")
    return CausalLMPolicy.load(directory, sampler_dtype=dtype, device=device, lora_rank=rank)


def gold_reward(run: Run) -> RewardFunction:
    return open_reward(run.spec.where["gold_reward"], device=run.spec.where.get("device", "cpu"))


def fine_tune(run: Run) -> None:
    """Supervised fine-tuning of the named model on reviews that give no prompts."""
    config = run.spec.config
    base = load_policy(run, Path(run.spec.where["reference"]))
    reviews = load_reviews(run.spec.where["reviews"], "train")
    texts = imdb_sentiment.texts_for_sft(
        reviews, base, count=config["texts"], max_tokens=config["max_tokens"], seed=config["seed"]
    )
    policy = SFT().train(TrainingData(texts=texts), base, TypeAdapter(SFT.Config).validate_python(config["config"]), run)
    run.costs["tokens_trained"] = getattr(policy, "tokens_trained", 0)


def draw_prompts(run: Run) -> None:
    """Prefixes of one split, from the reference or from reviews."""
    config, policy = run.spec.config, reference_policy(run)
    split, size, seed = config["split"], config["size"], config["seed"]
    if config["reviews"] is None:
        folder = Path(run.spec.where["reference"])
        prompts = imdb_sentiment.prompts_of_model(folder, policy, split, size, seed=seed)
    else:
        reviews = load_reviews(run.spec.where["reviews"], "train" if split == "train" else "test")
        prompts = imdb_sentiment.prompts_from_reviews(reviews, policy, split, size, sft_texts=config["sft_texts"], seed=seed)
    run.write_table("prompts.parquet", prompts_table(prompts))


def draw_completions(run: Run) -> None:
    """Completions of some prompts from the reference, with gold reward and, where asked for, log π_ref."""
    config, policy = run.spec.config, reference_policy(run)
    first, last = config["prompts"]
    prompts = read_prompts(run.input("prompts") / "prompts.parquet")[first:last]
    keywords = {name: config[name] for name in ("num_samples", "max_new_tokens", "seed")}
    with run.progress(len(prompts) * config["num_samples"], "completions") as bar:
        drawn = policy.sample(prompts, **keywords, on_batch=bar.update)
    first_of_each = [some[0] for some in drawn]
    if not sampler_kl(policy, first_of_each) <= MAX_SAMPLER_KL:  # draw again in the scorer's precision
        policy.sampler_dtype = None
        drawn = policy.sample(prompts, **keywords)
        first_of_each = [some[0] for some in drawn]
    run.costs["sampler_kl"] = sampler_kl(policy, first_of_each)
    check_sampler(run.costs["sampler_kl"])
    completions = [c for some in drawn for c in some]
    frame = completions_table(drawn)
    frame["reward"], frame["log_odds"] = score(gold_reward(run), completions)
    if precision := config.get("reference_log_probs"):
        with autocast(policy.device, precision):
            frame["reference_logps"] = policy.log_prob(completions).numpy()
    run.costs["tokens_sampled"] = int(frame["tokens"].sum())
    run.write_table("completions.parquet", frame)


def make_pairs(run: Run) -> None:
    """Label all pairs of completions of each training prefix, and rank them."""
    config = run.spec.config
    parts = [run.input(name) / "completions.parquet" for name in sorted(run.spec.inputs)]
    completions = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    keywords = {name: config[name] for name in ("labels", "scale", "seed")}
    pairs, counts = label_pairs(completions, **keywords)
    rankings, more_counts = label_rankings(completions, **keywords)
    if not len(pairs):
        raise UserError(f"no preference pairs are left of {counts}; use more prompts or longer completions")
    run.write_table("pairs.parquet", pairs)
    run.write_table("rankings.parquet", rankings)
    (run.directory / "counts.json").write_text(json.dumps({**counts, **more_counts}))


def train_reward_model(run: Run) -> None:
    """Fit the learned reward on the pairs; leaves the model and what is known of its quality."""
    config, reference = run.spec.config, reference_policy(run)
    prompts = read_prompts(run.input("prompts") / "prompts.parquet")
    pairs = pairs_from_table(pd.read_parquet(run.input("pairs") / "pairs.parquet"), prompts)
    settings = TypeAdapter(RewardModelConfig).validate_python(config["config"])
    model, held_out, found = fit_reward_model(pairs, reference, settings, run)
    write_atomically(run.directory / "model", model.save)
    run.write_table("held_out.parquet", held_out)
    write_atomically(run.directory / "quality.json", lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))
    run.costs["tokens_trained"] = model.tokens_trained
    run.costs["accuracy"] = found["accuracy"]


def score_completions(run: Run) -> None:
    """The learned reward of the first `num_samples` completions of each prompt that another run drew."""
    prompts = {p.id: p.text for p in read_prompts(run.input("prompts") / "prompts.parquet")}
    frame = pd.read_parquet(run.input("completions") / "completions.parquet", columns=["prompt_id", "sample", "text"])
    frame = frame[frame["sample"] < run.spec.config["num_samples"]]
    model = RewardModel.load(run.input("reward_model") / "model", device=run.spec.where.get("device", "cpu"))
    with autocast(model.device, run.spec.config["precision"]):
        scores = model(frame["prompt_id"].map(prompts).tolist(), frame["text"].tolist())
    run.write_table("scores.parquet", frame[["prompt_id", "sample"]].assign(score=scores))


def train_policy(run: Run) -> None:
    """Train one method with one setting and one seed; leaves its snapshots."""
    config = run.spec.config
    reference = reference_policy(run)
    method = load_method(config["method"])()
    prompts = read_prompts(run.input("prompts") / "prompts.parquet")
    pairs = pairs_from_table(pd.read_parquet(run.input("pairs") / "pairs.parquet"), prompts)
    check_step_0(reference.copy(), reference, pairs, stored_in=config["precision"])
    have: dict[str, Any] = {"pairs": pairs, "prompts": prompts}
    if "rankings" in method.needs:
        have["rankings"] = rankings_from_table(pd.read_parquet(run.input("pairs") / "rankings.parquet"), prompts)
    if "reward" in method.needs:
        have["reward"] = RewardModel.load(run.input("reward_model") / "model", device=run.spec.where.get("device", "cpu"))
    if "gold_reward" in method.needs:
        have["gold_reward"] = gold_reward(run)
    data = TrainingData(
        **{name: value for name, value in have.items() if name in method.needs}, max_new_tokens=config["max_new_tokens"]
    )
    policy = method.train(data, reference, TypeAdapter(method.Config).validate_python(config["config"]), run)
    kept = snapshots(run.directory)
    if len(kept) != config["num_snapshots"]:
        raise UserError(
            f"{method.name} kept {len(kept)} snapshots, {config['num_snapshots']} were asked for; it needs more steps"
        )
    run.costs["tokens_trained"] = getattr(policy, "tokens_trained", 0)
    run.costs["tokens_sampled"] = getattr(policy, "tokens_sampled", 0)
    run.costs["tokens_scored"] = getattr(policy, "tokens_scored", 0)


def snapshots(directory: Path) -> list[Path]:
    """Kept policies of a training run, in order of steps."""
    return sorted((directory / "snapshots").glob("step-*"))


def evaluate_policy(run: Run) -> None:
    """Gold reward and KL of one snapshot (or of the reference) on validation and test prompts, all in fp32.

    At another `temperature` than 1 the KL is that of the tempered sampler.
    """
    config, reference = run.spec.config, reference_policy(run)
    policy, step = reference, 0
    if "policy" in run.spec.inputs:
        directory = snapshots(run.input("policy"))[config["snapshot"]]
        policy, step = load_policy(run, directory), int(directory.name.removeprefix("step-"))
    reward, parts = gold_reward(run), []
    splits = [name for name in ("validation", "test") if name in run.spec.inputs]
    prompts = {split: read_prompts(run.input(split) / "prompts.parquet") for split in splits}
    keywords = {name: config[name] for name in ("num_samples", "max_new_tokens", "seed")}
    keywords["temperature"] = config.get("temperature", 1.0)
    keywords["kl_of"] = "policy" if keywords["temperature"] == 1 else "sampler"
    with run.progress(sum(map(len, prompts.values())) * config["num_samples"], "completions") as bar:
        for split in splits:
            part = evaluate_reward_kl(policy, reference, reward, prompts[split], **keywords, on_batch=bar.update)
            check_sampler(part["sampler_kl"].mean())
            parts.append(part.assign(split=split, step=step))
    frame = pd.concat(parts, ignore_index=True)
    run.costs["tokens_sampled"] = int(frame["tokens"].sum())
    run.write_table("samples.parquet", frame)


@dataclass(frozen=True)
class Stage:
    """A stage's function and the modules whose code decides its result; helpers of this file belong to every stage."""

    function: Callable[[Run], None]
    modules: tuple[str, ...]

    def code(self, more: tuple[str, ...] = ()) -> str:
        """Hash of all the code that decides the stage's result; `more` names further modules, such as the method's."""
        helpers = (reference_policy, load_policy, gold_reward, snapshots)
        return code_hash((*self.modules, *more), (self.function, *helpers))


TASK = ("suite.data.tasks.imdb_sentiment", "suite.data.reviews", "suite.policies.causal_lm")
MEASUREMENT = ("suite.policies.causal_lm", "suite.evaluation.reward_kl", "suite.rewards.text_rewards", "suite.data.tables")
STAGES: dict[str, Stage] = {
    "sft": Stage(fine_tune, (*TASK, "suite.training.supervised")),
    "prompts": Stage(draw_prompts, (*TASK, "suite.data.tables")),
    "completions": Stage(draw_completions, (*MEASUREMENT, "suite.training.loop")),
    "pairs": Stage(make_pairs, ("suite.data.labelling",)),
    "reward_model": Stage(
        train_reward_model, ("suite.data.tables", "suite.policies.causal_lm", "suite.training.reward_modeling")
    ),
    "scores": Stage(score_completions, ("suite.data.tables", "suite.rewards.reward_model", "suite.training.loop")),
    "train": Stage(train_policy, ("suite.data.tables", "suite.policies.causal_lm")),
    "evaluation": Stage(evaluate_policy, MEASUREMENT),
}


def pool_column(files: list[Path], column: str) -> pd.DataFrame:
    """One number of the shared pool of reference samples: prompts by samples, NaN where a prompt has fewer than others."""
    frame = pd.concat([pd.read_parquet(file, columns=["prompt_id", "sample", column]) for file in files])
    return frame.pivot(index="prompt_id", columns="sample", values=column)
