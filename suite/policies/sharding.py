"""One model on several devices: its weights are sharded over the ranks (`suite.common.ranks`), and what passes through it is
split among them. Where there is one rank, nothing of this happens.

All ranks run the same program on the same data. What asks a model for numbers gets those of all rows on every rank, with
gradient, so that losses, metrics and decisions are the same everywhere, and a method need not know that it runs on several.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from suite.common.ranks import whole_tensor, world_size


class Whole(nn.Module):
    """A model with sharded weights, layer by layer and the rest together; what is called through it finds them whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def sharded(model: Any) -> Whole:
    """Shard the weights of a Hugging Face model in place (`torch.distributed.fsdp.fully_shard`); returns its `Whole`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
    config = model.config.get_text_config()
    layers = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers]
    for layer in layers[0] if layers else ():
        fully_shard(layer, mesh=mesh)
    whole = Whole(model)
    fully_shard(whole, mesh=mesh, reshard_after_forward=True)
    return whole


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Write the weights of a model, sharded or not, into one of the same layers that is not. All ranks must ask."""
    given = source.state_dict()
    for name, value in target.state_dict().items():
        value.copy_(whole_tensor(given[name]))


def whole_copy(model: Any) -> Any:
    """A copy of a Hugging Face model, sharded or not, with all its weights. All ranks must ask."""
    if world_size() == 1:
        return copy.deepcopy(model)
    some = next(model.parameters())
    with torch.random.fork_rng(devices=[some.device] if some.is_cuda else []), some.device:
        made = type(model)(copy.deepcopy(model.config)).to(some.dtype)
    if hasattr(model, "generation_config"):  # which may name more tokens that end a turn
        made.generation_config = copy.deepcopy(model.generation_config)
    copy_weights(model, made)
    return made.train(model.training)


def in_shares(whole: Any, forward: Callable[[Sequence[Any]], tuple[Tensor, ...]], items: Sequence[Any]) -> tuple[Tensor, ...]:
    """`forward(items)`, of which each rank computes a share.

    Args:
        whole: Of the model that `forward` uses (`sharded`); None if its weights are not sharded.
        forward: Items → tensors with a row for each item. Further dimensions may differ between shares: what is short is
            filled with 0 at the end.
        items: The same on every rank, in an order in which neighbours take equally long.

    Returns:
        The same on every rank. The gradient of the sharded weights is that of what all ranks compute from it once.
    """
    world = world_size()
    if world == 1:
        return forward(items)
    rank = dist.get_rank()
    mine = items[rank::world] or items[:1]  # one that has nothing to do joins in, since the others wait for it
    if whole is None:
        parts = forward(mine)
    elif torch.is_grad_enabled():
        parts = whole(lambda: tuple(part.clone() for part in forward(mine)))  # FSDP's hooks are not for views
    else:
        with torch.inference_mode(False), torch.no_grad():  # weights that are gathered now may be trained later
            parts = whole(partial(forward, mine))
    return tuple(_AllRows.apply(part, len(items)) for part in parts)


def drawn_in_shares(whole: Any, draw: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> list[Any]:
    """`draw(items)`, a list with something for each item, of which each rank draws a share while it has all the weights."""
    world = world_size()
    if world == 1:
        return draw(items)
    mine = items[dist.get_rank() :: world]
    every: list[Any] = [None] * world
    dist.all_gather_object(every, _with_all_weights(whole, lambda: draw(mine) if mine else []))
    return [every[k % world][k // world] for k in range(len(items))]


def _with_all_weights(whole: Any, function: Callable[[], Any]) -> Any:
    """`function()`, which may pass through the model as often as it likes, whatever the other ranks do."""
    if whole is None:
        return function()
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in whole.modules() if isinstance(module, FSDPModule)]

    def call() -> Any:
        for part in parts:
            part.unshard()
        return function()

    whole.set_reshard_after_forward(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            return whole(call)
    finally:
        for part in parts:
            part.reshard()
        whole.set_reshard_after_forward(True)


class _AllRows(torch.autograd.Function):
    """The rows of all ranks, of which rank r has r, r + world and so on."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, count: int) -> Tensor:
        rank, world = dist.get_rank(), world_size()
        sizes = torch.tensor(mine.shape[1:], dtype=torch.long, device=mine.device)
        if len(sizes):
            dist.all_reduce(sizes, op=dist.ReduceOp.MAX)
        ctx.shape, ctx.real = mine.shape, len(range(rank, count, world))
        padded = mine.new_zeros(-(-count // world), *sizes.tolist())
        padded[(slice(ctx.real), *map(slice, mine.shape[1:]))] = mine[: ctx.real]
        every = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(every, padded)
        return torch.stack(every, dim=1).flatten(0, 1)[:count]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Of this rank's rows, times the number of ranks: gradients of sharded weights are means over ranks."""
        rank, world = dist.get_rank(), world_size()
        own = grads[0].new_zeros(ctx.shape)
        own[: ctx.real] = grads[0][rank::world][(slice(None), *map(slice, ctx.shape[1:]))] * world
        return own, None
