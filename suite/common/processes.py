"""Which process is that, and does it still live? Of this machine the system says; of another nobody here knows."""

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import psutil

SAME_START_S = 2.0
"""The system's own account of when a process began may move by this much."""


class Process(NamedTuple):
    """What tells a process from every other, on any machine."""

    machine: str  # name and boot of the machine, and the space in which process numbers count
    pid: int
    started: float  # seconds; another process may have its number later


def this_process() -> Process:
    """The one that asks."""
    return Process(this_machine(), os.getpid(), psutil.Process().create_time())


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Name, boot and, of containers, the space of process numbers: two machines or containers of one name differ."""
    parts = [platform.node()]
    for path, read in (
        ("/proc/sys/kernel/random/boot_id", lambda p: p.read_text().strip()),
        ("/proc/self/ns/pid", os.readlink),
    ):
        try:
            parts.append(read(Path(path)))
        except OSError:  # no Linux
            parts.append("")
    return " ".join(filter(None, parts))


def is_there(pid: int) -> bool:
    """Whether any process of this machine has the number now and has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def lives(pid: int, started: float) -> bool:
    """Whether the process of this machine that began then, and not another of its number, is at work. One that has ended and of
    which its parent has taken no note is not; of one that may not be looked at it is believed.
    """
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < SAME_START_S
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
