"""A plan as a file: every run of it, so that a process that knows nothing else can make them, on another machine too.

Paths are kept as seen from the place where they are read again: those of this package from the package, all others from the
folder in which the command was given, and that folder from the folder of runs.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import suite
from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.engine.code_hash import code_hash
from suite.engine.making import closure
from suite.engine.store import RunSpec
from suite.engine.workload import Workload

FORMAT = 1
PACKAGE = Path(suite.__file__ or "").parent
OF_PACKAGE = "package:"


def write_plan(path: Path, root: Path, targets: Sequence[RunSpec]) -> None:
    """Write `targets` and all they need."""
    plan = {
        "format": FORMAT, "folder": os.path.relpath(Path.cwd(), root.resolve()), "targets": [spec.key for spec in targets],
        "runs": [_as_json(spec) for spec in closure(targets)],
    }  # fmt: skip
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(plan) + "\n"))


def folder_of(path: Path, root: Path) -> Path:
    """The folder that paths and modules of a plan are found from. Raises UserError as `read_plan` does."""
    return (root.resolve() / _read(path)["folder"]).resolve()


def read_plan(path: Path) -> list[RunSpec]:
    """The targets that `write_plan` wrote; their paths are seen from `folder_of` the plan.

    Raises:
        UserError: There is no such plan, it is of another version, or the code here is not that which planned it.
    """
    plan, specs = _read(path), dict[str, RunSpec]()
    for row in plan["runs"]:
        specs[row["key"]] = _from_json(row, specs, path)
    return [specs[key] for key in plan["targets"]]


def _read(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text())
        version = plan["format"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a plan that --engine workers has written") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no plan; give one that --engine workers has written") from error
    if version != FORMAT:
        raise UserError(f"{path}: is a plan of another version of the suite; install the one that wrote it")
    return plan


def _as_json(spec: RunSpec) -> dict[str, Any]:
    return {
        "key": spec.key, "stage": spec.stage, "config": spec.config, "code": spec.code, "made_of": spec.made_of,
        "inputs": {name: needed.key for name, needed in spec.inputs.items()}, "title": spec.title, "function": spec.function,
        "where": {name: _kept(value) for name, value in spec.where.items()}, "work": asdict(spec.work),
    }  # fmt: skip


def _from_json(row: Mapping[str, Any], known: Mapping[str, RunSpec], path: Path) -> RunSpec:
    modules, functions = row["made_of"]
    try:
        code = code_hash(modules, functions) if modules or functions else row["code"]
    except (ValueError, ImportError, OSError) as error:
        raise UserError(f"{path}: {row['stage']} {row['title']!r} cannot be made with the code here: {error}") from error
    spec = RunSpec(
        row["stage"], row["config"], {name: known[key] for name, key in row["inputs"].items()}, code,
        {name: _found(value) for name, value in row["where"].items()}, row["title"], Workload(**row["work"]), row["function"],
        (tuple(modules), tuple(functions)),
    )  # fmt: skip
    if spec.key != row["key"]:
        other = "the code here is not that which planned it; install the same everywhere"
        raise UserError(f"{path}: {row['stage']} {row['title']!r}: {other}")
    return spec


def _kept(value: Any) -> Any:
    """A path, or several with commas between, as it is written; anything else as it is."""
    return ",".join(map(_relative, value.split(","))) if isinstance(value, str) else value


def _relative(path: str) -> str:
    if not os.path.isabs(path):
        return path
    inside = Path(path).is_relative_to(PACKAGE)
    return OF_PACKAGE + Path(path).relative_to(PACKAGE).as_posix() if inside else os.path.relpath(path, Path.cwd())


def _found(value: Any) -> Any:
    return str(PACKAGE / value.removeprefix(OF_PACKAGE)) if isinstance(value, str) and value.startswith(OF_PACKAGE) else value
