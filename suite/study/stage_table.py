"""What makes each stage, and whose code decides its result: what a run's key holds of the suite itself."""

from collections.abc import Mapping
from typing import Any

STAGES = "suite.study.stages"
POLICIES = ("suite.data.parquet", "suite.policies.causal_lm", "suite.training.loop")
REWARDS = tuple(f"suite.rewards.{name}" for name in (
    "open_reward", "ngram_reward", "reward_model", "text_rewards", "combined_reward",
))  # fmt: skip
ENGINE = "suite.policies.vllm_sampler"
HELPERS = (f"{STAGES}.data:reading_of", *(f"{STAGES}.inputs:{name}" for name in (
    "reference_policy", "load_policy", "snapshots", "gold_reward", "learned_reward", "prompts_of", "pairs_of",
)))  # fmt: skip
"""Functions that stages begin with: part of every run's key."""
TABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "data": (f"{STAGES}.data:read_data", ("suite.data.parquet", "suite.policies.causal_lm")),
    "sft": (f"{STAGES}.reference:fine_tune", (*POLICIES, "suite.methods.supervised")),
    "samples": (f"{STAGES}.sampling:draw_samples", (*POLICIES, "suite.evaluation.reward_kl")),
    "scores": (f"{STAGES}.sampling:score_samples", (*POLICIES, *REWARDS)),
    "pairs": (f"{STAGES}.preferences:label_samples", ("suite.data.labelling",)),
    "reference_log_probs": (f"{STAGES}.preferences:add_reference_log_probs", POLICIES),
    "reward_model": (f"{STAGES}.training:train_reward_model", (*POLICIES, "suite.training.reward_modeling")),
    "combined_reward": (f"{STAGES}.training:combine_rewards", ("suite.data.parquet", "suite.rewards.combined_reward")),
    "policy": (f"{STAGES}.training:train_policy", ("suite.data.parquet", "suite.policies.causal_lm")),
    "measurements": (f"{STAGES}.measuring:measure_samples", (*POLICIES, *REWARDS)),
    "user_turns": (f"{STAGES}.ghost_attention:read_user_turns", ("suite.tasks.dialogues",)),
    "dialogues": (f"{STAGES}.ghost_attention:draw_dialogues", (*POLICIES, "suite.tasks.ghost_attention")),
    "gatt": (f"{STAGES}.ghost_attention:fine_tune_on_answers", (*POLICIES, "suite.methods.supervised")),
    "consistency": (
        f"{STAGES}.ghost_attention:measure_consistency",
        (*POLICIES, "suite.tasks.ghost_attention", "suite.evaluation.instruction_attention"),
    ),
}
"""Stage → "module:function" that makes it, and the modules whose code decides its result beside that function."""


def made_of(
    stage: str, config: Mapping[str, Any], *modules: str, helpers: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules and functions of whose code a run's key holds the hash, the function that makes the run first: those of its
    stage, the engine's where one draws, and what is given.
    """
    function, own = TABLE[stage]
    engine = (ENGINE,) if "sampler" in config else ()
    return (*own, *modules, *engine), (function, *HELPERS, *helpers)


def drawn_by(sampler: str, device: str) -> dict[str, str]:
    """What a key holds of an engine that draws completions: nothing where the suite does. Raises UserError without vLLM."""
    if sampler == "own":
        return {}
    from suite.policies.vllm_sampler import version

    return {"sampler": f"{sampler} {version()} on {device.partition(':')[0]}"}
