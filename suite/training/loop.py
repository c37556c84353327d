"""fit(): the one loop of all offline methods, and the optimizer settings they share."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from suite.data.batching import Group, by_prompt, length_batches
from suite.interfaces import Run
from suite.training.settings import OptimConfig, rate_share, snapshot_steps, steps_per_epoch

LossFn = Callable[[Any, Sequence[Any]], tuple[Tensor, dict[str, Tensor]]]


class NonFiniteLoss(Exception):
    """The loss or its gradient became NaN or infinite; names the step. The last checkpoint is kept."""


def fit(policy: Any, examples: Sequence[Any], loss_fn: LossFn, config: OptimConfig, run: Run) -> Any:
    """Minimise the mean of `loss_fn` over `examples`: the loop of every offline method.

    All examples of a prompt are in one batch, so that a completion that stands in several passes through the model once (sec.
    3.5 of Ouyang et al. 2022, arXiv:2203.02155, where a prompt's comparisons shuffled apart also made reward models overfit).

    Logs `loss` [nats], `grad_norm` before clipping, `lr`, `tokens` trained so far, and the means of `loss_fn`'s metrics.

    Args:
        policy: Has `model`, `device` and `save`; its model is trained in place. Dropout is off.
        examples: Texts (`Completion`), pairs or rankings; prompts are shuffled anew every epoch by `run.seed`.
        loss_fn: (policy, batch of examples) → (loss per example, metrics per example), each of shape (len(batch),).
        config: Optimizer settings.
        run: Seed, log, snapshots, checkpoints.

    Raises:
        ValueError: No examples, or `loss_fn` gives something else than one number per example.
        NonFiniteLoss: Names the step; the last checkpoint is kept.
    """
    if not examples:
        raise ValueError("no examples to train on")
    optimizer = torch.optim.RMSprop(policy.model.parameters(), lr=config.lr)
    groups = by_prompt(examples)
    per_epoch = steps_per_epoch(len(examples), len(groups), config)
    step, steps = 0, per_epoch * config.num_epochs
    snapshots = set(snapshot_steps(steps, config.num_snapshots))
    if state := run.load_checkpoint():
        policy.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, policy.tokens_trained = state["step"], state["tokens_trained"]
    with run.progress(steps, "step", step) as bar:
        while step < steps:
            epoch, at = divmod(step, per_epoch)
            order = epoch_order(len(groups), run.seed, epoch)
            batch = [groups[i] for i in batch_of(order, at, per_epoch)]
            for group in optimizer.param_groups:
                group["lr"] = config.lr * rate_share(step, steps, config)
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


def batch_of(order: Sequence[int], at: int, batches: int) -> Sequence[int]:
    """Part `at` of `order` in so many parts, whose sizes differ by one at most."""
    return order[at * len(order) // batches : (at + 1) * len(order) // batches]


def _accumulate_gradients(policy, batch: Sequence[Group], loss_fn: LossFn, config: OptimConfig) -> dict[str, float]:
    """Backward of the mean loss of the batch's examples, in micro-batches of prompts with completions of like lengths.
    Returns means over the batch of the loss and the metrics.
    """
    sums: dict[str, float] = {}
    total = sum(len(group.examples) for group in batch)
    lengths, sequences = [group.length for group in batch], [group.sequences for group in batch]
    for index in length_batches(lengths, lambda _: config.micro_batch_size, sequences):
        examples = [example for i in index for example in batch[i].examples]
        with autocast(policy.device, config.precision):
            losses, metrics = loss_fn(policy, examples)
        _check_per_example(losses, metrics, len(examples))
        (losses.sum() / total).backward()
        for name, values in {"loss": losses.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    return {name: value / total for name, value in sums.items()}


def _check_per_example(losses: Tensor, metrics: dict[str, Tensor], count: int) -> None:
    """Raise a ValueError for a loss or a metric that is no tensor of one number per example: a mean would be divided again."""
    for name, values in {"the loss": losses, **{f"metric {name!r}": values for name, values in metrics.items()}}.items():
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if shape != (count,):
            raise ValueError(f"{name}: expected one value per example, shape {(count,)}, and no mean of them, got {shape}")
        if values is not losses and values.requires_grad:
            raise ValueError(f"{name} has a gradient; detach it, only the loss is trained on")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's arithmetic: bf16 where asked for, else as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
