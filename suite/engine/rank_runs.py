"""One run on several devices: the process that holds it leads, and others follow it through the same program.

Followers write nothing that is kept. They are processes that the leader starts (`--gpus`), or those that torchrun or
`accelerate launch` has started beside it. How weights and batches are split is
`suite.policies.sharding`.
"""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import pkgutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from suite.common.errors import UserError
from suite.common.machine import quiet_libraries
from suite.common.ranks import agreed, full, full_state, in_step, together
from suite.engine import checkpoint
from suite.engine.store import Run, RunSpec

BACKENDS = "cpu:gloo,cuda:nccl"
SECONDS_TO_END = 60.0
"""For followers, when the run is made; and for one that failed to say why."""


class FollowerRun(Run):
    """The run of another process. What is written into its folder, which lies elsewhere, is nobody's."""

    def __init__(self, root: Path, spec: RunSpec, scratch: Path) -> None:
        super().__init__(root, spec)
        self.led, self.directory = self.directory.absolute(), scratch
        (scratch / "snapshots").symlink_to(self.led / "snapshots")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def snapshot(self, policy: Any, step: int) -> None:
        full_state(policy.model)  # its share of what the leader writes
        in_step()

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        full(state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        return checkpoint.load(self.led, self.spec.key) if agreed(None) else None

    def progress(self, total: int, unit: str, done: int = 0) -> Any:
        return tqdm(disable=True)


@contextlib.contextmanager
def followed(run: Run, gpus: int) -> Iterator[None]:
    """While the block makes `run`, so many processes make it, this one and followers, if it is one that trains."""
    if gpus == 1 or not run.spec.work.trained:
        yield
    elif launched() > 1:
        with together():
            agreed((run.root.absolute(), run.spec))
            yield
    else:
        with tempfile.TemporaryDirectory() as folder:
            meeting = Path(folder)
            with _started(run, gpus, meeting), joined(0, gpus, meeting, run.spec):
                yield


@contextlib.contextmanager
def joined(rank: int, world: int, meeting: Path, spec: RunSpec) -> Iterator[None]:
    """Be one of so many ranks, which meet in a folder of this machine."""
    import torch
    import torch.distributed as dist

    threads, on_gpu = torch.get_num_threads(), spec.where.get("device", "cpu").startswith("cuda")
    torch.set_num_threads(max(1, threads // world))
    if on_gpu:
        torch.cuda.set_device(rank)
    place = f"file://{meeting.absolute()}/meeting"
    dist.init_process_group(BACKENDS if on_gpu else "gloo", init_method=place, rank=rank, world_size=world)
    try:
        with _tensors_that_mix(), together():
            yield
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _tensors_that_mix() -> Iterator[None]:
    """Tensors that are not sharded count as the same on every rank beside those that are; and what an optimizer has read from a
    checkpoint is sharded as its weights are.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor
    from torch.distributed.tensor.experimental import implicit_replication
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def shard_state(optimizer: Any, *_: Any) -> None:
        for weight, state in optimizer.state.items():
            for name, value in state.items() if isinstance(weight, DTensor) else ():
                if not isinstance(value, DTensor) and value.shape == weight.shape:
                    state[name] = distribute_tensor(value, weight.device_mesh, weight.placements)

    hook = register_optimizer_step_pre_hook(shard_state)
    try:
        with implicit_replication(), warnings.catch_warnings():
            for words in ("Found a non-scalar tensor with numel=1", "FSDP2-wrapped module .* returned a view tensor"):
                warnings.filterwarnings("ignore", words)
            yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _started(run: Run, gpus: int, scratch: Path) -> Iterator[None]:
    """Followers, each a process that ends with this one. If the block fails since one of them did, its error is raised."""
    import torch

    context = multiprocessing.get_context("spawn")
    same = (gpus, scratch, run.root.absolute(), run.spec, torch.get_num_threads(), os.getpid())
    followers = [context.Process(target=_follow_from, args=(rank, *same)) for rank in range(1, gpus)]
    for follower in followers:
        follower.start()
    try:
        yield
        for follower in followers:
            follower.join(SECONDS_TO_END)
    except Exception as error:
        if isinstance(error, (UserError, OSError)):
            raise
        for follower in followers:
            follower.join(1.0)
        for path in sorted(scratch.glob("rank-*.error")):
            raise RuntimeError(f"{path.stem}: {path.read_text(encoding='utf-8')}") from error
        raise
    finally:
        for follower in followers:
            follower.kill()
            follower.join()


def _follow_from(rank: int, world: int, scratch: Path, root: Path, spec: RunSpec, threads: int, leader: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader stops it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the leader
        if os.getppid() != leader:
            os._exit(1)
    import torch

    torch.set_num_threads(threads)
    try:
        with joined(rank, world, scratch, spec):
            _follow(root, spec)
    except Exception:
        (scratch / f"rank-{rank}.error").write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
        sys.exit(1)


def _follow(root: Path, spec: RunSpec) -> None:
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        pkgutil.resolve_name(spec.function)(FollowerRun(root, spec, Path(folder)))


def launched() -> int:
    """Processes that torchrun or `accelerate launch` has started together; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ and "MASTER_ADDR" in os.environ else 1


def lead_or_follow() -> None:
    """Begin a program that torchrun may have started several times: the first goes on, the others follow it and end."""
    if launched() == 1:
        return
    import torch
    import torch.distributed as dist

    rank, on_gpu = int(os.environ["RANK"]), torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(BACKENDS if on_gpu else "gloo")
    mixing = contextlib.ExitStack()
    mixing.enter_context(_tensors_that_mix())
    if rank == 0:
        atexit.register(_dismiss)
        return
    with together():
        while task := agreed(None):
            with contextlib.suppress(Exception):  # the leader, which runs the same program, tells of it
                _follow(*task)
    dist.destroy_process_group()
    sys.exit(0)


def _dismiss() -> None:
    import torch.distributed as dist

    with together():
        agreed(())
    dist.destroy_process_group()
