"""Settings of training, and the numbers that follow from them. No torch, so that plans can be made without it."""

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class OptimConfig:
    """RMSprop with linear warm-up, then a constant rate (App. B of Rafailov et al. 2023; their values are the defaults), or one
    that falls as a cosine (`rate_share`).
    """

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
    least_warmup_steps: int = 0
    """But never fewer steps than this."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After warm-up."""
    final_share: float = 0.1
    """Of the peak rate, what a cosine ends at."""
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
    return max(1, min(config.warmup_steps, max(config.least_warmup_steps, int(config.warmup_share * steps))))


def rate_share(step: int, steps: int, config: OptimConfig) -> float:
    """Share of the peak learning rate at step `step` (from 0) of so many: linear warm-up to 1; then constant, or along half a
    cosine to `final_share` at the last step.
    """
    warmup = warmup_of(steps, config)
    if config.schedule == "constant" or step < warmup:
        return min(1.0, (step + 1) / warmup)
    done = (step + 1 - warmup) / max(1, steps - warmup)
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * min(1.0, done))) / 2


RatingMargins = Literal["none", "small", "large"]
MARGINS: dict[str, tuple[float, float, float, float]] = {
    "none": (0.0, 0.0, 0.0, 0.0), "small": (0.0, 1 / 3, 2 / 3, 1.0), "large": (0.0, 1.0, 2.0, 3.0),
}  # fmt: skip
"""m of the Bradley-Terry loss by rating, from 0 (negligibly better) to 3 (significantly better): Touvron et al. 2023
(arXiv:2307.09288), App. A.3.3."""


@dataclass(frozen=True)
class RewardModelConfig:
    """Settings of reward modelling."""

    validation_share: float = 0.1
    """Share of the prompts whose pairs choose the checkpoint and are not trained on."""
    margin: float = 0.0
    """m of the Bradley-Terry loss per unit of gold reward difference; 0 for none."""
    rating_margins: RatingMargins = "none"
    """m by the rating of a pair (`MARGINS`), on top of it; every pair must have a rating then, but for "none"."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(num_epochs=3))
