"""Models and data by folder or Hub name, and what identifies their contents."""

import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from suite.common.errors import UserError

WEIGHTS = ("*.safetensors", "*.bin")
"""Of a repository that has both the first alone is fetched."""
MODEL_FILES = (*WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja")


def resolve_model(name: str, *, weights: bool = True) -> tuple[str, str]:
    """Local folder and content digest of a model given as a folder or a Hub name; without `weights` these are not fetched.

    Raises:
        UserError: Neither a folder nor reachable on the Hub; says how to get it offline.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve()), data_digest(name, MODEL_FILES) or ""
    if name.startswith((".", "/", "~")):
        raise UserError(f"model folder {name!r} does not exist")
    from huggingface_hub import snapshot_download

    others, path, reason = [pattern for pattern in MODEL_FILES if pattern not in WEIGHTS], "", ""
    for offline, kind in product((True, False), WEIGHTS if weights else ("",)):
        try:
            path = snapshot_download(name, allow_patterns=[*others, kind], local_files_only=offline)
        except Exception as error:  # the client raises many kinds: no network, unknown repository, bad name
            reason = type(error).__name__
            continue
        if not weights or any(Path(path).glob(kind)):
            break
    if path:
        return path, f"{name}@{Path(path).name}"
    raise UserError(
        f"model {name!r} is neither a folder here nor could it be fetched from the Hub ({reason}). Offline? Where there is "
        f"a network, run: hf download {name} --local-dir {name.rpartition('/')[2]}; copy the folder here and pass its path"
    )


def data_digest(source: str | None, patterns: Sequence[str] = ("*",)) -> str | None:
    """Hash of the contents of a local file or folder; a Hub name stands for itself; of several with commas between all of it;
    None stays None.
    """
    if not source or not Path(source).expanduser().exists():
        return ",".join(str(data_digest(part.strip())) for part in source.split(",")) if source and "," in source else source
    path, digest = Path(source).expanduser(), hashlib.sha256()
    files = [path] if path.is_file() else sorted({f for p in patterns for f in path.rglob(p) if f.is_file()})
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
