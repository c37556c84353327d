"""A tokenizer from a folder, or one line that says why there is none."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from suite.common.errors import UserError, first_line
from suite.data.chat_template import check_template

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken", "*.model", "*.bpe")
NEEDS_PACKAGE = ("*.model", "*.tiktoken")
"""Files that transformers reads with sentencepiece or tiktoken, where there is no `tokenizer.json`."""


def load_tokenizer(folder: Path | str, name: str = "", *, needs_eos: bool = True) -> Any:
    """The tokenizer of a `save_pretrained` folder; `name` is what the user calls it. No code of the folder is run.

    Raises:
        UserError: Files or packages are missing, it cannot be read, it has no EOS, or its chat template cannot be used.
    """
    from transformers import AutoTokenizer

    called, folder = name or str(folder), Path(folder)
    if not any(file for pattern in FILES for file in folder.glob(pattern)):
        raise UserError(
            f"{called}: no tokenizer in the folder (tokenizer.json or another of {', '.join(FILES[1:])}); copy it there"
        )
    bare = not (folder / "tokenizer.json").exists() and any(f for pattern in NEEDS_PACKAGE for f in folder.glob(pattern))
    if bare and not (find_spec("sentencepiece") and find_spec("tiktoken")):
        raise UserError(
            f"{called}: its tokenizer is no tokenizer.json and needs packages that are not installed: pip install "
            '"rlhf-vs-dpo[tokenizers]" (sentencepiece, tiktoken)'
        )
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a stranger's files: anything may be wrong with them
        raise UserError(f"{called}: its tokenizer cannot be loaded ({type(error).__name__}: {first_line(error)})") from error
    if needs_eos and found.eos_token_id is None:
        raise UserError(f"{called}: its tokenizer has no EOS token; set eos_token in tokenizer_config.json")
    check_template(found, called)
    return found
