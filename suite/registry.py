"""Names of methods → classes, through the entry-point group `suite.methods`. Imports no torch until a class is asked for."""

from __future__ import annotations

import pkgutil
import sys
from importlib.metadata import entry_points
from typing import Any

from suite.errors import UserError, did_you_mean

GROUP = "suite.methods"


def method_targets() -> dict[str, str]:
    """Every registered method: name → "module:Class". Our own methods come through the same door as anybody's."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def search_current_folder() -> None:
    """Let names of the form module:Class be found in the current folder too, after everything that is installed."""
    if "" not in sys.path:
        sys.path.append("")


def resolve(name: str) -> str:
    """The "module:Class" of a registered name; a name that already is "module:Class" is returned as it is.

    Raises:
        UserError: Unknown name.
    """
    if ":" in name:
        return name
    targets = method_targets()
    if not targets:
        raise UserError("no methods are registered: the package is not installed; run `pip install .` in its folder first")
    if name not in targets:
        raise UserError(f"unknown method {name!r}; {did_you_mean(name, targets)}, or your own as module:Class")
    return targets[name]


def load_method(name: str) -> Any:
    """The method class for a registered name or "module:Class".

    Raises:
        UserError: Unknown name, the module or class cannot be imported, or it is no method.
    """
    target = resolve(name)
    if ":" in name:
        search_current_folder()
    try:
        method = pkgutil.resolve_name(target)
    except Exception as error:  # an outside module may raise anything while it is imported
        raise UserError(f"method {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}") from error
    for attribute in ("name", "Config", "needs", "promise", "evaluated_from_pool", "train"):
        if not hasattr(method, attribute):
            raise UserError(f"method {name!r} has no {attribute!r}; suite/interfaces.py says what a method is")
    return method
