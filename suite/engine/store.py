"""Content-addressed run directories: equal specifications share one, whoever asks and whenever.

<root>/<stage>/<key[:16]>/
    spec.json        what produced it         lease-N.json    the process that holds it (`suite.engine.lease`)
    metrics.jsonl    one row per step         checkpoint.pt   to resume from; gone when done
    snapshots/step-N   policies to evaluate   DONE         written last, by rename: cost, date, versions, hashes of the rest

<root>/damaged/<stage>/<key[:16]>/ holds what a run had left that was found to be damaged and was made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.files import naming, remove, write_atomically
from suite.common.machine import instructions
from suite.common.ranks import agreed, full, in_step
from suite.engine import checkpoint, manifest
from suite.engine.lease import BEAT_S, Lease, held, is_lease, make_folder
from suite.engine.progress import bar
from suite.engine.tracking import Tracker, open_tracker
from suite.engine.workload import Workload
from suite.interfaces import POLICY_CLASS

SECONDS_BETWEEN_CHECKPOINTS = 20.0
DAMAGED = "damaged"
"""Folder of what was set aside."""


@dataclass(frozen=True, eq=False)
class RunSpec:
    """What a run is. The key is a hash of `stage`, `config`, `code` and the inputs' keys, and of nothing else."""

    stage: str  # what kind of run it is; names its folder
    config: Mapping[str, Any]  # everything that decides the result; JSON
    inputs: Mapping[str, RunSpec] = field(default_factory=dict)  # the runs whose results it reads
    code: str = ""  # hash of the code that makes it (`suite.engine.code_hash`)
    where: Mapping[str, Any] = field(default_factory=dict)  # what does not decide the result: paths, device
    title: str = ""  # for people
    work: Workload = field(default_factory=Workload)  # what it asks of the machine
    function: str = ""  # "module:function" that makes it, called with the open `Run`; its code is in `code`
    made_of: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # modules and functions that `code` is the hash of

    @cached_property
    def key(self) -> str:
        return _sha256({**self._common(), "code": self.code, "inputs": {k: v.key for k, v in self.inputs.items()}})

    @cached_property
    def intent(self) -> str:
        """As `key`, whatever the code: two runs of one intent differ in code only."""
        return _sha256({**self._common(), "inputs": {k: v.intent for k, v in self.inputs.items()}})

    def _common(self) -> dict[str, Any]:
        return {"stage": self.stage, "config": self.config}

    def as_json(self) -> dict[str, Any]:
        inputs = {name: f"{spec.stage}/{spec.key[:16]}" for name, spec in self.inputs.items()}
        return {**self._common(), "code": self.code, "inputs": inputs, "key": self.key, "intent": self.intent}

    @property
    def cost(self) -> float:
        """Work in forward tokens, at least 1: for progress and ordering."""
        return max(1.0, self.work.tokens)

    def directory(self, root: Path) -> Path:
        return root / self.stage / self.key[:16]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


class Run:
    """An open run directory: what a stage works with, and the `Run` that methods receive (`suite.interfaces.Run`)."""

    def __init__(self, root: Path, spec: RunSpec, tracker: Tracker = "none") -> None:
        self.root, self.spec, self.directory = root, spec, spec.directory(root)
        self.tracker_kind: Tracker = tracker
        self.tracker: Any = None
        self.seed: int = spec.config.get("seed", 0)
        self._began = self._last_checkpoint = time.monotonic()
        self._checkpoint_took = 0.0
        self.costs: dict[str, float] = {}
        self.lease: Lease | None = None
        self._lease_seen = 0.0

    @property
    def done(self) -> bool:
        return manifest.done(self.directory)

    def input(self, name: str) -> Path:
        """Directory of a finished input run."""
        return self.spec.inputs[name].directory(self.root)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.check_lease(every=BEAT_S)  # one that slept for long writes nothing into what is another's now
        spec = self.spec
        self.tracker = self.tracker or open_tracker(
            self.tracker_kind, self.root, stage=spec.stage, title=spec.title, key=spec.key, config=spec.config, step=step
        )
        if self.tracker:
            self.tracker.log(metrics, step=step)
        path = self.directory / "metrics.jsonl"
        with naming(path), path.open("a") as file:
            file.write(json.dumps({"step": step, **{k: round(v, 8) for k, v in metrics.items()}}) + "\n")

    def snapshot(self, policy: Any, step: int) -> None:
        self.check_lease()

        def save(folder: Path) -> None:
            policy.save(folder)
            (folder / POLICY_CLASS).write_text(f"{type(policy).__module__}:{type(policy).__qualname__}")

        write_atomically(self.directory / "snapshots" / f"step-{step:06d}", save)
        in_step()

    def checkpoint_due(self) -> bool:
        passed = time.monotonic() - self._last_checkpoint
        return agreed(passed > max(SECONDS_BETWEEN_CHECKPOINTS, 20 * self._checkpoint_took))

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        self.check_lease()
        started = time.monotonic()
        checkpoint.save(self.directory, self.spec.key, {**full(state), "step": step, "seconds": started - self._began})
        if self.lease:
            self.lease.made_progress()
        self._last_checkpoint = time.monotonic()
        self._checkpoint_took = self._last_checkpoint - started  # writing takes at most a twentieth of the time

    def load_checkpoint(self) -> dict[str, Any] | None:
        state, metrics = checkpoint.load(self.directory, self.spec.key), self.directory / "metrics.jsonl"
        agreed(state is not None)
        step = state["step"] if state else 0
        if metrics.exists():  # rows after the checkpoint will be made again; a torn last line is one of them
            lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
            write_atomically(metrics, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))
        if state:
            self._began -= state["seconds"]
        return state

    def progress(self, total: int, unit: str, done: int = 0) -> Any:
        return bar(total, unit, self.spec.title, done)

    def write_table(self, name: str, frame: Any) -> None:
        """Store a pandas table as parquet."""
        self.check_lease()
        write_atomically(self.directory / name, lambda path: frame.to_parquet(path, index=False))

    def finish(self) -> None:
        """Mark the run as done, with what it cost and what made it. Raises Held if another process has taken it over."""
        self.check_lease()
        facts = {
            "seconds": round(time.monotonic() - self._began, 2),
            "worker_peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **self.costs,
            "title": self.spec.title,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **provenance(),
        }
        manifest.write_done(self.directory, facts)
        remove(self.directory / checkpoint.FILE)

    def check_lease(self, *, every: float = 0.0) -> None:
        """Raise Held if another process has taken the run over; looked at again after so many seconds at the earliest."""
        if self.lease and time.monotonic() - self._lease_seen >= every:
            self.lease.check()
            self._lease_seen = time.monotonic()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except ValueError:
        return float("inf")


def facts(root: Path, spec: RunSpec) -> dict[str, Any]:
    """What `DONE` says of a finished run."""
    return manifest.read_json(spec.directory(root) / "DONE")


class Damaged(UserError):
    """A finished run is not what it was; it counts as not done from now on."""


@contextlib.contextmanager
def open_run(root: Path, spec: RunSpec, tracker: Tracker = "none") -> Iterator[Run]:
    """Open, resume or find finished the run of `spec`, held by a lease until closed; its metrics also go to `tracker`.

    One that was finished and is damaged is told of on stderr and begun anew, and what is left of it is set aside.

    Raises:
        Held: Another live process holds it.
        UserError: `spec.json` on disk differs (hand edit or hash collision), or a file stands where a folder belongs.
    """
    run = Run(root, spec, tracker)
    if run.done:
        yield run
        return
    if os.path.lexists(run.directory) and not run.directory.is_dir():
        set_aside(root, run.directory, manifest.flaw(run.directory))
    with held(run.directory) as run.lease:
        if run.done:  # by another process, just now
            yield run
            return
        if problem := manifest.flaw(run.directory):
            _move_aside(root, run.directory, problem)
        _tidy(run.directory)
        path, wanted = run.directory / "spec.json", spec.as_json()
        if path.exists() and manifest.read_json(path) != json.loads(json.dumps(wanted)):
            raise UserError(f"{path}: does not match the run that leads to it; remove {run.directory} to make it anew")
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(wanted, indent=1) + "\n"))
        try:
            yield run
        finally:
            if run.tracker:
                run.tracker.finish()


def set_aside(root: Path, directory: Path, problem: str) -> None:
    """Say what is wrong with a run, and put all it left where nothing looks for it: the next start makes it again. Raises Held
    if a live process has it.
    """
    with held(directory) if directory.is_dir() else contextlib.nullcontext():
        _move_aside(root, directory, problem)


def _move_aside(root: Path, directory: Path, problem: str) -> None:
    aside = root / DAMAGED / directory.parent.name / directory.name
    make_folder(aside.parent)
    print(f"{directory}: {problem}; the run is made again", file=sys.stderr, flush=True)
    remove(aside)
    if not directory.is_dir():
        os.replace(directory, aside)
        return
    aside.mkdir()
    for path in directory.iterdir():
        if not is_lease(path.name) and not path.name.startswith("."):  # this process holds it; another one looks at it
            os.replace(path, aside / path.name)


def _tidy(directory: Path) -> None:
    """Take out what a stopped process left, but what a run goes on from."""
    kept = {"spec.json"}
    if os.path.lexists(directory / checkpoint.FILE):
        kept |= {checkpoint.FILE, "metrics.jsonl", "snapshots"}
    for path in list(directory.iterdir()):
        if path.name not in kept and not is_lease(path.name):
            remove(path)
    for path in list(directory.rglob(".*.tmp")):
        remove(path)


@contextlib.contextmanager
def reading(root: Path, specs: Iterable[RunSpec]) -> Iterator[None]:
    """While finished runs are read: if anything fails, every byte of them is looked at, and one that is not what it was is set
    aside, so that the next start makes it again. Raises Damaged, which names it.

    A UserError that no other error caused is of the user's input, not of a run's files.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and error.__cause__ is None:
            raise
        for directory in (spec.directory(root) for spec in specs):
            if problem := manifest.flaw(directory, every_byte=True):
                set_aside(root, directory, problem)
                raise Damaged(f"{directory}: {problem}; start the same command again to make it anew") from None
        raise


def status(root: Path, spec: RunSpec) -> str:
    """How the plan shows a run: `cached`, `damaged` (it will be made again), `resumes`, `code changed` (done before by other
    code) or `to run`.
    """
    return statuses(root, [spec])[spec]


def statuses(root: Path, specs: Sequence[RunSpec]) -> dict[RunSpec, str]:
    """The `status` of every run of a plan; each folder is looked into once."""
    done_intents: dict[str, set[str]] = {}  # by stage, whatever the code

    def of(spec: RunSpec) -> str:
        directory = spec.directory(root)
        if manifest.done(directory):
            return "cached"
        if manifest.flaw(directory):
            return "damaged"
        if os.path.lexists(directory / checkpoint.FILE):
            return "resumes"
        if spec.stage not in done_intents:
            others = (path for path in directory.parent.glob("*/spec.json") if manifest.done(path.parent))
            done_intents[spec.stage] = {str(manifest.read_json(path).get("intent")) for path in others}
        return "code changed" if spec.intent in done_intents[spec.stage] else "to run"

    return {spec: of(spec) for spec in specs}


@lru_cache(maxsize=1)
def provenance() -> dict[str, str]:
    """Git revision, package versions and machine: recorded with every run, never part of its key."""
    try:
        git = ["git", "-C", str(Path(sys.argv[0]).resolve().parent)]  # the checkout of the script, installed or not
        sha = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
        sha += "+changes" if dirty.strip() else ""
    except (OSError, subprocess.CalledProcessError):
        sha = "not a git checkout"
    packages = " ".join(f"{name}={version(name)}" for name in ("torch", "transformers", "numpy"))
    return {"git_sha": sha, "packages": packages, "machine": f"{platform.machine()} ({instructions()}), {os.cpu_count()} cores"}
