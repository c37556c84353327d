"""One door for methods, tasks, evaluators and judges: registered names and module:Class. Imports no torch itself."""

import argparse
import pkgutil
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, Literal, NoReturn, get_type_hints

from suite.common.errors import UserError, did_you_mean

Kind = Literal["method", "task", "evaluator", "judge", "policy"]
ATTRIBUTES: dict[Kind, tuple[str, ...]] = {
    "method": ("name", "Config", "needs", "promise", "evaluated_from_pool", "train"),
    "task": ("name", "gives_pairs", "template", "examples"),
    "evaluator": ("name", "needs", "metrics", "points", "measure"),
    "judge": (),
    "policy": (),
}
"""What an object of each kind must have (`suite/interfaces.py`)."""


@cache
def targets(kind: Kind) -> dict[str, str]:
    """Every registered name of a kind → "module:Class". Ours come through the same door as anybody's."""
    group = "suite.policies" if kind == "policy" else f"suite.{kind}s"
    return {point.name: point.value for point in entry_points(group=group)}


def search_current_folder() -> None:
    """Let names of the form module:Class be found in the current folder too, after everything that is installed."""
    if "" not in sys.path:
        sys.path.append("")


def resolve(name: str, kind: Kind = "method") -> str:
    """The "module:Class" of a registered name; "module:Class" is returned as it is. An unknown name is a `UserError`."""
    if ":" in name:
        return name
    known = targets(kind)
    if not known:
        raise UserError(f"no {kind}s are registered: the package is not installed; run `pip install .` in its folder first")
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; {did_you_mean(name, known)}, or your own as module:Class")
    return known[name]


def imported(target: str, what: str) -> Any:
    """The object of "module:name"; where it cannot be imported, that is a `UserError` about `what`."""
    parser_error = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = _not_here  # type: ignore[assignment,method-assign]
    try:
        return pkgutil.resolve_name(target)
    except (Exception, SystemExit) as error:  # an outside module may raise anything while it is imported
        raise UserError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        argparse.ArgumentParser.error = parser_error  # type: ignore[method-assign]


def _not_here(_: argparse.ArgumentParser, message: str) -> NoReturn:
    """In place of argparse's usage and exit, while a module is imported."""
    raise RuntimeError(f"it parses a command line when it is imported ({message}); put that under if __name__ == '__main__'")


def load(name: str, kind: Kind) -> Any:
    """The object that a registered name or "module:Class" stands for. Raises UserError if the name is unknown, the module or
    the object cannot be imported, or it is none of that kind.
    """
    if ":" in name:
        search_current_folder()
    target = resolve(name, kind)
    found = imported(target, f"{kind} {name!r} ({target})")
    for attribute in ATTRIBUTES[kind]:
        if not hasattr(found, attribute):
            raise UserError(f"{kind} {name!r} has no {attribute!r}; suite/interfaces.py says what a {kind} is")
    if "name" in ATTRIBUTES[kind] and not (isinstance(found.name, str) and found.name.strip() and found.name.isprintable()):
        raise UserError(f"{kind} {name!r}: its name is {found.name!r}; expected a text of one line, for tables and figures")
    if kind == "method":
        _check_types(found.Config, f"method {name!r}")
    return found


def _check_types(config: Any, what: str) -> None:
    """Raise a UserError for a field of a Config whose type is not known when the program runs: it could not be read."""
    try:
        if isinstance(config, type):
            get_type_hints(config)
    except NameError as error:
        named = {name: str(kind) for base in config.__mro__ for name, kind in vars(base).get("__annotations__", {}).items()}
        fields = ", ".join(repr(name) for name, kind in named.items() if str(error.name) in kind)
        raise UserError(
            f"{what}: the type of its Config's field {fields} is not known when it runs ({error}); import {error.name} outside "
            "of `if TYPE_CHECKING`"
        ) from error


@dataclass(frozen=True)
class MethodInfo:
    """A method's attributes with the defaults of the optional ones filled in, and where it was found."""

    method: Any  # the class
    target: str  # module:Class
    name: str
    needs: frozenset[str]
    evaluated_from_pool: bool
    trained: bool  # has weights that change; False for prompting and for what is evaluated from the pool
    resumable: bool
    one_process: bool
    grid: tuple[Any, ...]  # settings to sweep; one empty setting where the method names none
    packages: tuple[str, ...]

    @property
    def fields(self) -> frozenset[str]:
        """Names of the Config's fields."""
        return frozenset(self.method.Config.__dataclass_fields__)

    @property
    def searched(self) -> bool:
        """It has a learning rate that a study can choose."""
        return self.trained and "optim" in self.fields

    @property
    def versions(self) -> dict[str, Any]:
        """The part of a run's key that names the packages that the method needs; one that is missing is a `UserError`."""
        try:
            return {"packages": {name: version(name) for name in self.packages}} if self.packages else {}
        except PackageNotFoundError as error:
            raise UserError(f"method {self.name} needs the package {error.name}: pip install {error.name}") from error


def describe(name: str) -> MethodInfo:
    """What is to be known of a method, by registered name or "module:Class"; `load` says what is raised."""
    method = load(name, "method")
    return MethodInfo(
        method, resolve(name), method.name, method.needs, method.evaluated_from_pool,
        trained=getattr(method, "trained", True) and not method.evaluated_from_pool,
        resumable=getattr(method, "resumable", True), one_process=getattr(method, "one_process", False),
        grid=tuple(getattr(method, "grid", ())) or ({},),
        packages=tuple(getattr(method, "packages", ())),
    )  # fmt: skip
