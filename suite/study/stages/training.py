"""Stages `reward_model` and `policy`: whatever a study trains, or prompts, on its preferences."""

import json
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.common.registry import describe
from suite.data.mixtures import in_shares
from suite.data.parquet import rankings_from_table
from suite.engine.store import Run
from suite.evaluation.self_test import check_step_0
from suite.interfaces import TrainingData
from suite.rewards.combined_reward import PARTS, CombinedReward, CombinedRewardConfig
from suite.rewards.reward_model import RewardModel
from suite.study.stages.inputs import gold_reward, learned_reward, pairs_of, prompts_of, reference_policy, snapshots
from suite.training.reward_modeling import fit_reward_model
from suite.training.settings import RewardModelConfig


def train_reward_model(run: Run) -> None:
    """Fit the learned reward on the pairs; leaves the model and what is known of its quality."""
    config, reference = run.spec.config, reference_policy(run)
    settings = TypeAdapter(RewardModelConfig).validate_python(config["config"])
    pairs = pairs_of(run)
    if shares := config["shares"]:
        pairs = in_shares([pair for pair in pairs if pair.domain in shares], shares)
    model, held_out, found = fit_reward_model(pairs, reference, settings, run)
    write_atomically(run.directory / "model", model.save)
    run.write_table("held_out.parquet", held_out)
    write_atomically(run.directory / "quality.json", lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))
    run.costs["tokens_trained"] = model.tokens_trained
    run.costs["accuracy"] = found["accuracy"]


def combine_rewards(run: Run) -> None:
    """Two reward models as one reward, whitened on the completions of the pairs."""
    settings = TypeAdapter(CombinedRewardConfig).validate_python(run.spec.config["config"])
    device = run.spec.where.get("device", "cpu")
    helpfulness, safety = (RewardModel.load(run.input(name) / "model", device=device) for name in PARTS)
    samples = sorted({(c.prompt.text, c.text) for pair in pairs_of(run) for c in pair.completions})
    combined = CombinedReward(helpfulness, safety, settings)
    run.costs["tokens_scored"] = 2 * sum({c: c.length for pair in pairs_of(run) for c in pair.completions}.values())
    run.costs["by_safety"] = float(combined.logits(*zip(*samples, strict=True))[1].mean())
    write_atomically(run.directory / "model", combined.whitened(*zip(*samples, strict=True)).save)


def train_policy(run: Run) -> None:
    """Train one method with one setting and one seed, or prompt the model; leaves its snapshots."""
    config, reference = run.spec.config, reference_policy(run)
    info = describe(config["method"])
    prompts, pairs = prompts_of(run), pairs_of(run)
    if info.trained:
        check_step_0(reference.copy(), reference, pairs, stored_in=config["precision"])
    have: dict[str, Any] = {"pairs": pairs, "prompts": prompts}
    if "rankings" in info.needs:
        have["rankings"] = rankings_from_table(pd.read_parquet(run.input("pairs") / "rankings.parquet"), prompts)
    if "reward" in info.needs:
        have["reward"] = learned_reward(run)
    if "gold_reward" in info.needs:
        have["gold_reward"] = gold_reward(run)
    data = TrainingData(**{name: have[name] for name in info.needs}, max_new_tokens=config["max_new_tokens"])
    settings = TypeAdapter(info.method.Config).validate_python(config["config"])
    policy = info.method().train(data, reference, settings, run)
    kept = snapshots(run.directory)
    if len(kept) != config["num_snapshots"]:
        raise UserError(
            f"{info.name} kept {len(kept)} snapshots, {config['num_snapshots']} were asked for; it needs more steps"
        )
    for name in ("tokens_trained", "tokens_sampled", "tokens_scored"):
        run.costs[name] = getattr(policy, name, 0)
    if found := getattr(policy, "sampler_kl", 0.0):
        run.costs["sampler_kl"] = found
