"""fit(): the one loop of all offline methods, and the optimizer settings they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from suite.interfaces import Run

LossFn = Callable[[Any, Sequence[Any]], tuple[Tensor, dict[str, Tensor]]]


class NonFiniteLoss(Exception):
    """The loss or its gradient became NaN or infinite; names the step. The last checkpoint is kept."""


@dataclass(frozen=True)
class OptimConfig:
    """RMSprop with linear warm-up, then a constant rate (App. B of Rafailov et al. 2023; their values are the defaults)."""

    lr: float = 1e-6
    """Peak learning rate."""
    batch_size: int = 64
    """Examples per optimizer step."""
    micro_batch_size: int = 64
    """Examples per forward pass; changes memory, not the result (beyond rounding)."""
    num_epochs: int = 1
    """Passes over the examples."""
    warmup_steps: int = 150
    """Steps of linear warm-up from 0."""
    warmup_share: float = 1.0
    """Warm-up takes at most this share of the steps, so that little data are not spent on it."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this norm."""
    num_snapshots: int = 4
    """Policies kept for evaluation, evenly spaced over the steps, the last step included."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass (autocast); weights and log-probability sums are float32."""


def snapshot_steps(total_steps: int, num_snapshots: int) -> list[int]:
    """The optimizer steps after which a policy is kept, evenly spaced, the last step included.

    Raises:
        ValueError: Fewer steps than snapshots.
    """
    if total_steps < num_snapshots:
        raise ValueError(f"{total_steps} optimizer steps are too few for {num_snapshots} snapshots; use more data or epochs")
    return [round(total_steps * k / num_snapshots) for k in range(1, num_snapshots + 1)]


def total_steps(num_examples: int, config: OptimConfig) -> int:
    """Optimizer steps of a whole run; the last batch of an epoch may be short."""
    return config.num_epochs * -(-num_examples // config.batch_size)


def warmup_of(steps: int, config: OptimConfig) -> int:
    """Steps of linear warm-up in a run of so many; 1 is none."""
    return max(1, min(config.warmup_steps, int(config.warmup_share * steps)))


def fit(policy: Any, examples: Sequence[Any], loss_fn: LossFn, config: OptimConfig, run: Run) -> Any:
    """Minimise the mean of `loss_fn` over `examples`: the loop of every offline method.

    Logs `loss` [nats], `grad_norm` before clipping, `lr`, `tokens` trained so far, and the means of `loss_fn`'s metrics.

    Args:
        policy: Has `model`, `device` and `save`; its model is trained in place. Dropout is off.
        examples: What `loss_fn` understands; shuffled anew every epoch by `run.seed`.
        loss_fn: (policy, batch of examples) → (loss per example, metrics per example), each of shape (len(batch),).
        config: Optimizer settings.
        run: Seed, log, snapshots, checkpoints.

    Raises:
        ValueError: No examples.
        NonFiniteLoss: Names the step; the last checkpoint is kept.
    """
    if not examples:
        raise ValueError("no examples to train on")
    optimizer = torch.optim.RMSprop(policy.model.parameters(), lr=config.lr)
    step, steps = 0, total_steps(len(examples), config)
    per_epoch = steps // config.num_epochs
    snapshots = set(snapshot_steps(steps, config.num_snapshots))
    if state := run.load_checkpoint():
        policy.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, policy.tokens_trained = state["step"], state["tokens_trained"]
    with run.progress(steps, "step", step) as bar:
        while step < steps:
            epoch, at = divmod(step, per_epoch)
            batch = [
                examples[i] for i in epoch_order(len(examples), run.seed, epoch)[at * config.batch_size :][: config.batch_size]
            ]
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / warmup_of(steps, config))
            metrics = _accumulate_gradients(policy, batch, loss_fn, config)
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), config.max_grad_norm)
            if not torch.isfinite(grad_norm) or not math.isfinite(metrics["loss"]):
                raise NonFiniteLoss(
                    f"step {step + 1}: loss {metrics['loss']}, gradient norm {float(grad_norm)}; lower the learning rate "
                    f"({config.lr}); the last checkpoint is kept"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            run.log(
                step, {**metrics, "grad_norm": float(grad_norm), "lr": group["lr"], "tokens": float(policy.tokens_trained)}
            )  # fmt: skip
            bar.update(1)
            if step in snapshots:
                run.snapshot(policy, step)
            if run.checkpoint_due() and step < steps:
                state = {"model": policy.model.state_dict(), "optimizer": optimizer.state_dict()}
                run.save_checkpoint(step, {**state, "tokens_trained": policy.tokens_trained})
    return policy


def epoch_order(num_examples: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch visits the examples; a function of its arguments alone, so that a resumed run agrees."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(num_examples, generator=generator).tolist()


def _accumulate_gradients(policy, batch: Sequence[Any], loss_fn: LossFn, config: OptimConfig) -> dict[str, float]:
    """Backward of Σ loss / len(batch), micro-batch by micro-batch; returns batch means of the loss and the metrics."""
    sums: dict[str, float] = {}
    for at in range(0, len(batch), config.micro_batch_size):
        micro_batch = batch[at : at + config.micro_batch_size]
        with autocast(policy.device, config.precision):
            losses, metrics = loss_fn(policy, micro_batch)
        (losses.sum() / len(batch)).backward()
        for name, values in {"loss": losses.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    return {name: value / len(batch) for name, value in sums.items()}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's arithmetic: bf16 where asked for, else as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
