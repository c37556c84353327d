"""A plan as a file: every run of it, so that a process that knows nothing else can make them, on another machine too.

Paths are kept as seen from the place where they are read again: those of this package from the package, all others from the
folder in which the command was given, and that folder from the folder of runs.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import suite
from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.common.registry import search_current_folder
from suite.engine.code_hash import code_hash
from suite.engine.making import closure
from suite.engine.store import RunSpec
from suite.engine.workload import Workload

PLANS = "plans"
FORMAT = 1
PACKAGE = Path(suite.__file__ or "").parent
OF_PACKAGE = "package:"


def write_plan(root: Path, targets: Sequence[RunSpec], *, folder: str = PLANS, more: Any = None) -> Path:
    """Write `targets` and all they need into `<root>/<folder>`, and `more` beside them; the same targets, the same file."""
    name = hashlib.sha256("".join(sorted(spec.key for spec in targets)).encode()).hexdigest()[:16]
    path = root / folder / f"{name}.json"
    plan = {
        "format": FORMAT, "folder": os.path.relpath(Path.cwd(), root.resolve()), "targets": [spec.key for spec in targets],
        "runs": [_as_json(spec) for spec in closure(targets)], **(more or {}),
    }  # fmt: skip
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(plan) + "\n"))
    return path


def enter_plan(path: Path) -> tuple[Path, list[RunSpec]]:
    """The folder of runs and the targets that `write_plan` wrote; see `enter_more`."""
    root, targets, _ = enter_more(path)
    return root, targets


def enter_more(path: Path) -> tuple[Path, list[RunSpec], dict[str, Any]]:
    """Likewise, with all else that stands in the file. The folder from which their paths are seen, and in which methods of the
    user's own are found, becomes the current one.

    Raises:
        UserError: There is no such plan, it is of another version, or the code here is not that which planned it.
    """
    path = path.absolute()
    root, plan, specs = path.parents[1], _read(path), dict[str, RunSpec]()
    os.chdir((root.resolve() / plan["folder"]).resolve())
    search_current_folder()
    for row in plan["runs"]:
        specs[row["key"]] = _from_json(row, specs, path)
    return root, [specs[key] for key in plan["targets"]], plan


def _read(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text())
        version = plan["format"]
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a plan that a command with --engine has written"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no plan; give one that a command with --engine has written") from error
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
