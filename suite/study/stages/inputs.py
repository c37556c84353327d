"""What every stage begins with: policies, rewards, prompts and pairs out of the directories of the runs before it."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from suite.data.parquet import pairs_from_table, read_prompts
from suite.data.preference_data import PreferencePair, Prompt
from suite.engine.store import Run
from suite.interfaces import RewardFunction
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.kinds import policy_class_of
from suite.policies.vllm_sampler import check_version
from suite.rewards.open_reward import open_reward


def reference_policy(run: Run) -> Any:
    """π_ref: the fine-tuned model of the stage `sft` if there is one, else the model that the study names."""
    where = run.spec.where
    return load_policy(run, snapshots(run.input("sft"))[-1] if "sft" in run.spec.inputs else Path(where["model"]))


def load_policy(run: Run, directory: Path) -> Any:
    """A causal language model, or whatever class the snapshot says it is."""
    config = run.spec.config
    methods = [spec.config.get("method", "") for spec in (run.spec, *run.spec.inputs.values())]
    if (cls := policy_class_of(directory, methods=methods)) is not CausalLMPolicy:
        return cls.load(directory)
    dtype = getattr(torch, config.get("sampler_dtype", "float32"))
    rank, device = config.get("lora_rank", 0), run.spec.where.get("device", "cpu")
    sampler, _, engine = config.get("sampler", "own").partition(" ")  # version and device
    if engine:
        check_version(engine.partition(" ")[0])
    return CausalLMPolicy.load(directory, sampler_dtype=dtype, sampler=sampler, device=device, lora_rank=rank)


def snapshots(directory: Path) -> list[Path]:
    """Kept policies of a training run, in order of steps."""
    return sorted((directory / "snapshots").glob("step-*"))


def gold_reward(run: Run) -> RewardFunction:
    """The ground truth of the study."""
    return open_reward(run.spec.where["gold_reward"], device=run.spec.where.get("device", "cpu"))


def learned_reward(run: Run) -> Any:
    """The reward model among the run's inputs, or two of them combined."""
    return open_reward(str(run.input("reward_model") / "model"), device=run.spec.where.get("device", "cpu"))


def prompts_of(run: Run, name: str = "prompts") -> list[Prompt]:
    """The prompts of an input that a task gave."""
    return read_prompts(run.input(name) / "prompts.parquet")


def pairs_of(run: Run) -> list[PreferencePair]:
    """The preference pairs among the run's inputs, on its prompts."""
    return pairs_from_table(pd.read_parquet(run.input("pairs") / "pairs.parquet"), prompts_of(run))
