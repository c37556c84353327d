"""A hash of the code that produced a result, so that an edited loss is never answered from an old run."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


def code_hash(modules: Iterable[str], functions: Iterable[str] = (), *, roots: Iterable[str] = ()) -> str:
    """Hash of `modules`, of all they import from their own package, from `suite` and from `roots`, and of `functions`.

    `functions` are named "module:function"; their own bodies alone count. Comments, docstrings and layout do not: only what
    runs. Nothing is imported.
    """
    closure: dict[str, str] = {}
    open_modules = list(modules)
    while open_modules:
        name = open_modules.pop()
        if name in closure:
            continue
        closure[name], imported = _digest_and_imports(name)
        followed = {"suite", name.partition(".")[0], *roots}
        open_modules += [other for other in imported if other.partition(".")[0] in followed]
    parts = [f"{name}:{closure[name]}" for name in sorted(closure)]
    parts += [_function_digest(name) for name in functions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _function_digest(name: str) -> str:
    module, _, function = name.partition(":")
    spec = importlib.util.find_spec(module)
    body = ast.parse(Path(spec.origin or "").read_text(encoding="utf-8")).body if spec else []
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return _digest(node)
    raise ValueError(f"{name}: there is no such function")


@cache
def _digest_and_imports(name: str) -> tuple[str, frozenset[str]]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return "", frozenset()
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if spec.submodule_search_locations else name.rpartition(".")[0]
                base = importlib.util.resolve_name("." * node.level + base, package)
            imported.add(base)
            if base.partition(".")[0] in ("suite", name.partition(".")[0]):
                imported.update(f"{base}.{alias.name}" for alias in node.names if _is_module(f"{base}.{alias.name}"))
    return _digest(tree), frozenset(imported)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _digest(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body:  # docstrings of modules, classes, functions and fields
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(_written(tree).encode()).hexdigest()[:16]


def _written(node: Any) -> str:
    """A syntax tree as text that is the same for every version of Python that reads it: fields and parts of f-strings that are
    empty are left out, since versions differ in which there are.
    """
    if isinstance(node, ast.JoinedStr):
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    if isinstance(node, ast.AST):
        filled = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({', '.join(f'{name}={_written(value)}' for name, value in sorted(filled))})"
    return f"[{', '.join(map(_written, node))}]" if isinstance(node, list) else repr(node)
