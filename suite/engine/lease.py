"""Who makes a run: a lease on its folder, also where several machines share the file system.

A lease is a file `lease-N.json`; the highest N holds the folder. It is created exclusively, which every file system can do
(on some, the locks of `flock` end at the machine), and its holder touches it every `BEAT_S` seconds. One that was given back,
whose process has ended (of this machine the system says so), or that has been silent for `SILENCE_S` (of another nobody here
knows more) is taken over by creating N + 1. N never falls, so a holder that was silent and wakes up finds a higher number.
"""

import contextlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.files import remove
from suite.common.processes import is_there, lives, this_machine, this_process

BEAT_S = 10.0
SILENCE_S = 120.0
"""A holder on another machine that was not heard of for so long is taken for dead."""
AGAIN_S = 0.05
"""Between two looks at a folder in which another process was faster."""
NAME = re.compile(r"lease-(\d{1,9})\.json")


class Held(UserError):
    """Another live process makes the run just now."""


@dataclass(frozen=True)
class Lease:
    """A folder that this process holds."""

    directory: Path
    number: int
    token: str
    deaths: int  # so many holders in a row, up to now, ended without giving it back
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> Path:
        return _path(self.directory, self.number)

    def check(self) -> None:
        """Raise Held if another process has taken the folder over, since nothing was heard of this one for so long."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)  # asks the server of a shared file system, which may have shown an old list of names before
            if _latest(self.directory) == self.number and _read(self.path).get("token") == self.token:
                return
        holder = _holder(_read(_path(self.directory, _latest(self.directory))))
        raise Held(f"{self.directory}: taken over by {holder}, since nothing was heard of this one")

    def made_progress(self) -> None:
        """Who died here before died of something else: nobody has died since."""
        if self.deaths:
            self._write({**_read(self.path), "deaths": 0})

    def beat(self) -> None:
        """Show that the holder lives, until the lease is given back."""
        while not self.ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # the file is gone, or the file system for a while
                os.utime(self.path)

    def give_back(self) -> None:
        """Let anybody take the folder."""
        self.ended.set()
        with contextlib.suppress(OSError):  # the folder is gone
            if self.path.exists():
                self._write({"given_back": True})

    def _write(self, facts: dict[str, Any]) -> None:
        whole = self.path.with_name(f".{self.path.name}.{self.token}.tmp")
        whole.write_text(json.dumps(facts))
        os.replace(whole, self.path)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[Lease]:
    """Hold a folder, made if it is not there, until the block or the process ends. Raises Held if another process has it."""
    lease = _take(directory)
    heart = threading.Thread(target=lease.beat, daemon=True)
    heart.start()
    try:
        yield lease
    finally:
        lease.give_back()
        heart.join()


def at_work(directory: Path) -> bool:
    """Whether somebody seems to make what is in a folder; looked at, and nothing else, by the clock of this machine."""
    try:
        number = _latest(directory)
        path = _path(directory, number)
        found = _read(path)
        if not number or not found or found.get("given_back"):
            return False
        if found.get("machine") == this_machine():
            return is_there(found["pid"]) and lives(found["pid"], found["started"])
        return time.time() - path.stat().st_mtime < SILENCE_S
    except OSError:
        return False


def is_lease(name: str) -> bool:
    """Whether a file of that name is a lease."""
    return bool(NAME.fullmatch(name))


def make_folder(directory: Path) -> None:
    """Make a folder if it is not there. Raises UserError, which names it, if a file stands in its way."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(path for path in reversed([directory, *directory.parents]) if os.path.lexists(path) and not path.is_dir())
        raise UserError(f"{file}: a file stands where a folder of runs belongs; move it away") from error


def _take(directory: Path) -> Lease:
    while True:
        make_folder(directory)
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # another process was faster; look again
            if lease := _try(directory):
                return lease
        time.sleep(AGAIN_S)


def _try(directory: Path) -> Lease | None:
    """The lease, or None where another process was faster. Raises Held."""
    last, deaths = _latest(directory), 0
    if last:
        path = _path(directory, last)
        found = _read(path)
        if not _is_free(path, found):
            raise Held(f"{directory}: held by {_holder(found)}; wait for it, stop it, or use another --runs folder")
        deaths = 0 if found.get("given_back") else found.get("deaths", 0) + 1
    lease = Lease(directory, last + 1, uuid.uuid4().hex, deaths)
    with lease.path.open("x") as file:
        try:
            json.dump({"token": lease.token, "deaths": deaths, **this_process()._asdict()}, file)
            file.flush()
        except OSError:  # the disk is full
            remove(lease.path)
            raise
    if _latest(directory) != lease.number:  # what was found had been taken over, given back and taken again meanwhile
        remove(lease.path)
        return None
    for number in _numbers(directory):
        if number < lease.number:
            remove(_path(directory, number))
    return lease


def _path(directory: Path, number: int) -> Path:
    return directory / f"lease-{number}.json"


def _numbers(directory: Path) -> list[int]:
    return [int(found[1]) for name in os.listdir(directory) if (found := NAME.fullmatch(name))]


def _latest(directory: Path) -> int:
    return max(_numbers(directory), default=0)


def _read(path: Path) -> dict[str, Any]:
    """What a lease says; nothing if that is not what one says."""
    try:
        found = json.loads(path.read_text())
        if found.get("given_back") is True:
            return {"given_back": True}
        return {**found, "pid": int(found["pid"]), "started": float(found["started"]), "deaths": int(found["deaths"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _is_free(path: Path, found: dict[str, Any]) -> bool:
    """Whether nobody holds a folder whose last lease is this. Raises FileNotFoundError if it is no longer."""
    if not os.path.lexists(path):
        raise FileNotFoundError(path)
    if found.get("given_back") or not path.is_file():
        return True
    if found.get("machine") == this_machine():
        if not is_there(found["pid"]):
            return True
        if lives(found["pid"], found["started"]):
            return False  # else another process has its number, or somebody has set the clock
    return _silent_for(path) > SILENCE_S


def _silent_for(path: Path) -> float:
    """Seconds since a file was touched, by the clock of the file system alone: those of two machines may differ."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        remove(probe)


def _holder(found: dict[str, Any]) -> str:
    machine = str(found.get("machine", ""))
    where = f" of {machine.partition(' ')[0]}" if machine and machine != this_machine() else ""
    return f"the live process {found.get('pid', 'unknown')}{where}"
