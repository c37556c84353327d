"""Settings of training, and the numbers that follow from them. No torch, so that plans can be made without it."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class OptimConfig:
    """RMSprop with linear warm-up, then a constant rate (App. B of Rafailov et al. 2023; their values are the defaults)."""

    lr: float = 1e-6
    """Peak learning rate."""
    batch_size: int = 64
    """Examples (pairs) per optimizer step, on average: all of a prompt's are in one step."""
    micro_batch_size: int = 64
    """Completions per forward pass; changes memory, not the result (beyond rounding). Those of a prompt are not parted."""
    num_epochs: int = 1
    """Passes over the examples."""
    warmup_steps: int = 150
    """Steps of linear warm-up from 0."""
    warmup_share: float = 1.0
    """Warm-up takes at most this share of the steps, so that little data are not spent on it."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this norm."""
    num_snapshots: int = 4
    """Policies kept for evaluation: of the last step, half of it, a quarter, … (`snapshot_steps`)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass (autocast); weights and log-probability sums are float32."""


def snapshot_steps(total_steps: int, num_snapshots: int) -> list[int]:
    """The steps after which a policy is kept, geometric: the last step, half of it, a quarter, …, so that every method has
    policies near the reference. Where halving would pass step 1, the ratio is the one that ends there.

    Raises:
        ValueError: Fewer steps than snapshots.
    """
    if total_steps < num_snapshots:
        raise ValueError(f"{total_steps} optimizer steps are too few for {num_snapshots} snapshots; use more data or epochs")
    halvings = max(1, num_snapshots - 1)
    ratio = min(2.0, total_steps ** (1 / halvings))
    steps = [0]
    for left in reversed(range(num_snapshots)):
        steps.append(max(steps[-1] + 1, round(total_steps / ratio**left)))
    return steps[1:]


def steps_per_epoch(num_examples: int, num_prompts: int, config: OptimConfig) -> int:
    """Optimizer steps of one pass over examples of so many prompts: one a prompt where prompts have more than a batch."""
    return min(num_prompts, -(-num_examples // config.batch_size))


def warmup_of(steps: int, config: OptimConfig) -> int:
    """Steps of linear warm-up in a run of so many; 1 is none."""
    return max(1, min(config.warmup_steps, int(config.warmup_share * steps)))


@dataclass(frozen=True)
class RewardModelConfig:
    """Settings of reward modelling."""

    validation_share: float = 0.1
    """Share of the prompts whose pairs choose the checkpoint and are not trained on."""
    margin: float = 0.0
    """m of the Bradley-Terry loss per unit of gold reward difference; 0 for none."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(num_epochs=3))
