"""The class that saved a policy: named in its folder, and one of those that are known. A stranger's name imports nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.registry import imported, targets
from suite.interfaces import POLICY_CLASS
from suite.policies.causal_lm import CausalLMPolicy


def policy_class_of(folder: Path, *, methods: Iterable[str] = ()) -> Any:
    """The class of a saved policy; a causal language model where the folder names none.

    Known are the registered ones (entry points `suite.policies`) and, for snapshots of one's own runs, those in the modules of
    `methods` given as module:Class.

    Raises:
        UserError: The folder names anything else, or what it names cannot be imported.
    """
    file = folder / POLICY_CLASS
    if not file.exists():
        return CausalLMPolicy
    named = file.read_text(encoding="utf-8", errors="replace")[:200].strip()
    own = {target.partition(":")[0] for target in methods if ":" in target}
    if named not in targets("policy").values() and named.partition(":")[0] not in own:
        raise UserError(
            f"{file}: {named!r} is no registered policy class; remove the file if the folder holds a language model"
        )
    found = imported(named, f"{file}: {named!r}")
    if not hasattr(found, "load"):
        raise UserError(f"{file}: {named!r} has no load; suite/interfaces.py says what a policy is")
    return found
