"""One run on several devices: the process that holds it leads, and others follow it through the same program.

The leader starts its followers for each run anew; they write nothing that is kept, and end with it. How weights and batches are
split is `suite.policies.sharding`.
"""

import atexit
import contextlib
import ctypes
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from suite.common.errors import UserError
from suite.common.files import remove, write_atomically
from suite.common.machine import quiet_libraries
from suite.common.ranks import agreed, full, in_step, together
from suite.engine import checkpoint
from suite.engine.store import Run, RunSpec

BACKENDS = "cpu:gloo,cuda:nccl"
SECONDS_TO_END = 60.0
"""For followers, when the run is made."""
SECONDS_TO_SPEAK = 5.0
"""For followers, when it has failed, to say what they know of it."""
FOREVER = timedelta(days=365)
OVER = "suite/over"
_launched = 1


class RankLost(Exception):
    """A process that followed a run was ended by a signal."""


class FollowerRun(Run):
    """The run of another process. What is written into its folder, which lies elsewhere, is nobody's."""

    def __init__(self, root: Path, spec: RunSpec, scratch: Path) -> None:
        super().__init__(root, spec)
        self.led, self.directory = self.directory.absolute(), scratch
        scratch.mkdir()
        (scratch / "snapshots").symlink_to(self.led / "snapshots")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def snapshot(self, policy: Any, step: int) -> None:
        policy.save(self.directory / "not kept")  # the leader saves, and needs this one's share of it
        remove(self.directory / "not kept")
        in_step()

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        full(state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        return checkpoint.read(self.led, self.spec.key) if agreed(None) else None

    def progress(self, total: int, unit: str, done: int = 0) -> Any:
        return tqdm(disable=True)


def ranks_of(spec: RunSpec, gpus: int) -> int:
    """Processes that make a run where each may have so many GPUs: one where nothing is trained that can be sharded."""
    return gpus if spec.work.trained and not spec.work.one_process else 1


@contextlib.contextmanager
def followed(run: Run, gpus: int) -> Iterator[None]:
    """While the block makes `run`, so many processes make it, this one and followers, if it is one that trains.

    Raises:
        RankLost: A follower was ended by a signal.
    """
    if (world := ranks_of(run.spec, gpus)) == 1:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder)
        with _started(run, world, meeting), joined(0, world, meeting, run.spec):
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
def _started(run: Run, world: int, meeting: Path) -> Iterator[None]:
    """Followers, each a process that ends with this one. A block that fails since one of them did raises what that one says."""
    import torch

    context = multiprocessing.get_context("spawn")
    same = (world, meeting, run.root.absolute(), run.spec, torch.get_num_threads(), os.getpid())
    followers = [context.Process(target=_follow_from, args=(rank, *same)) for rank in range(1, world)]
    for follower in followers:
        follower.start()
    try:
        _wait_for_all(followers, meeting)
        yield
        for follower in followers:
            follower.join(SECONDS_TO_END)
    except Exception as error:
        if _is_of_the_connection(error):
            _raise_what_followers_say(followers, meeting, error)
        raise
    finally:
        for follower in followers:
            follower.kill()
            follower.join()


def _wait_for_all(followers: Sequence[Any], meeting: Path) -> None:
    """Until every follower is there. Raises ConnectionError if one has ended before."""
    waited_for = dict(enumerate(followers, 1))
    while waited_for:
        for rank, follower in list(waited_for.items()):
            if (meeting / f"rank-{rank}.here").exists():
                del waited_for[rank]
            elif follower.exitcode is not None:
                raise ConnectionError(f"rank-{rank} ended with exit code {follower.exitcode} before it began")
        time.sleep(0.02)


def _is_of_the_connection(error: Exception) -> bool:
    """Whether an error says only that another rank does not answer."""
    import torch.distributed as dist

    of_torch = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl", "c10d"))
    return isinstance(error, (ConnectionError, dist.DistError)) or of_torch


def _raise_what_followers_say(followers: Sequence[Any], meeting: Path, error: Exception) -> None:
    for follower in followers:
        follower.join(SECONDS_TO_SPEAK)
    for rank, follower in enumerate(followers, 1):
        if (follower.exitcode or 0) < 0:
            raise RankLost(f"rank-{rank}: signal {signal.Signals(-follower.exitcode).name}") from error
    for path in sorted(meeting.glob("rank-*.error")):
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["of_the_connection"]:
            continue
        if said["line"] is not None:
            raise UserError(said["line"]) from error
        raise RuntimeError(f"{path.stem}: {said['trace']}") from error


def _follow_from(rank: int, world: int, meeting: Path, root: Path, spec: RunSpec, threads: int, leader: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader stops it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the leader
        if os.getppid() != leader:
            os._exit(1)
    import torch

    torch.set_num_threads(threads)
    quiet_libraries()
    try:
        (meeting / f"rank-{rank}.here").touch()
        with joined(rank, world, meeting, spec):
            pkgutil.resolve_name(spec.function)(FollowerRun(root, spec, meeting / f"rank-{rank}"))
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else None
        said = {"line": line, "trace": traceback.format_exc(), "of_the_connection": _is_of_the_connection(error)}
        write_atomically(meeting / f"rank-{rank}.error", lambda path: path.write_text(json.dumps(said), encoding="utf-8"))
        sys.exit(1)


def launched() -> int:
    """Processes that torchrun or `accelerate launch` has started on this machine; 1 without them."""
    return _launched


def lead_or_wait() -> None:
    """Begin a program that torchrun may have started several times: the first goes on and has as many GPUs for each run as
    there are processes, for which it starts followers of its own; the others wait until it ends, and end.
    """
    global _launched
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return
    from torch.distributed import TCPStore

    first = os.environ["RANK"] == "0"
    hosts = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) != int(os.environ["WORLD_SIZE"]):
        raise UserError("torchrun: a run is made on the GPUs of one machine; start it with --nnodes 1")
    store = TCPStore(*place, is_master=hosts, timeout=FOREVER, wait_for_workers=False)
    if not first:
        with contextlib.suppress(Exception):  # the first is gone
            store.wait([OVER], FOREVER)
        sys.exit(0)
    atexit.register(lambda: store.set(OVER, "1"))
    _launched = int(os.environ["WORLD_SIZE"])
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)  # nobody else here is to think that there are others
