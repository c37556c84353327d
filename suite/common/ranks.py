"""Processes that make one run together, the ranks of a torch process group. torch is not imported where it is not in use."""

import contextlib
from collections.abc import Iterator
from typing import Any

_together = False


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it, all processes of the torch process group run the same program."""
    global _together
    _together = True
    try:
        yield
    finally:
        _together = False


def world_size() -> int:
    """Ranks that make this run together; 1 where this process works alone."""
    if not _together:
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def agreed(value: Any) -> Any:
    """What the first rank says, on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def in_step() -> None:
    """Wait until all ranks are here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def full_state(model: Any) -> dict[str, Any] | None:
    """The weights of a sharded model on the CPU of every rank, by name; None of one that is not. All ranks must ask."""
    if world_size() == 1:
        return None
    return {name: full(value) for name, value in model.state_dict().items()}


def full(value: Any) -> Any:
    """`value` with every sharded tensor in it put together, on the CPU. All ranks must ask."""
    if world_size() == 1:
        return value
    if isinstance(value, dict):
        return {name: full(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(full(part) for part in value)
    whole = whole_tensor(value)
    return value if whole is value else whole.cpu()


def whole_tensor(value: Any) -> Any:
    """A sharded tensor put together, where it is; anything else as it is. All ranks must ask."""
    if world_size() == 1:
        return value
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
