"""fit(): the one loop of all offline methods, and the optimizer settings they share."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from suite.interfaces import Run
from suite.training.settings import OptimConfig, snapshot_steps, total_steps, warmup_of

LossFn = Callable[[Any, Sequence[Any]], tuple[Tensor, dict[str, Tensor]]]


class NonFiniteLoss(Exception):
    """The loss or its gradient became NaN or infinite; names the step. The last checkpoint is kept."""


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
            order = epoch_order(len(examples), run.seed, epoch)
            batch = [examples[i] for i in order[at * config.batch_size :][: config.batch_size]]
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
            tokens = float(policy.tokens_trained)
            run.log(step, {**metrics, "grad_norm": float(grad_norm), "lr": group["lr"], "tokens": tokens})
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
