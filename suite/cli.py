"""The `suite` command. Studies are started from experiments/; here is what serves other people's classes and files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from suite.errors import UserError, one_line_errors
from suite.judge_cli import main as judge_main

TOKENIZER = Path(__file__).parent / "assets" / "imdb-gpt2"


def check_method(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Try a method on the exact world and print what it keeps and what it breaks. Under 30 seconds, on the CPU.

    Examples:
      suite check-method dpo                  a registered method
      suite check-method my_pkg.kto:KTO       a class of your own, importable from here

    Args:
        name: A registered method or module:Class.
    """
    sys.path.insert(0, "")  # a class in the current folder, as `python -m` would find it
    import torch

    from suite.check_method import check_method as run_checks
    from suite.runs.sweep import quiet_libraries

    torch.set_num_threads(1)  # tiny models; and the same sums each time
    quiet_libraries()
    results = []
    for result in run_checks(name):
        print(f"{'ok    ' if result.ok else 'FAILED'} {result.name.replace('_', ' '):<20} {result.why}", flush=True)
        results.append(result)
    failed = sum(not result.ok for result in results)
    print(f"\n{name}: {failed} of {len(results)} checks failed" if failed else f"\n{name}: all {len(results)} checks passed")
    return 1 if failed else 0


def doctor(
    source: Annotated[str, tyro.conf.Positional],
    tokenizer: str = str(TOKENIZER),
    max_length: int = 512,
    max_prompt_length: int = 256,
) -> int:
    """Say what is wrong with preference data before anything is trained on them. Exit code 1 if there are errors.

    Reads every format that TRL documents: chosen and rejected, with or without prompt, as text or as conversations.

    Examples:
      suite doctor pairs.jsonl
      suite doctor my_data/ --tokenizer gpt2               a folder with train.jsonl and test.jsonl: leaks are found too
      suite doctor trl-lib/ultrafeedback_binarized --tokenizer Qwen/Qwen3-0.6B

    Args:
        source: JSONL, CSV or parquet file, folder of them or of save_to_disk, or Hub name.
        tokenizer: Folder or Hub name of the model that will be trained; default: the embedded model's.
        max_length: Tokens of prompt and completion that the trainer keeps.
        max_prompt_length: Tokens of the prompt that the trainer keeps.
    """
    from transformers import AutoTokenizer

    from suite.data.doctor import examine, lines_of
    from suite.data.preference_tables import read_pairs
    from suite.runs.sweep import quiet_libraries

    quiet_libraries()
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"--tokenizer {tokenizer}: cannot be loaded ({str(error).partition(chr(10))[0]})") from error
    pairs, form = read_pairs(source, loaded)
    report = examine(pairs, loaded, max_length=max_length, max_prompt_length=max_prompt_length)
    rows = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    print(f"{source}: {form}; rows: {rows}")
    print("\n".join(lines_of(report)))
    return 0 if report.ok else 1


def judge() -> int:
    """Win rates of one file of answers over another, under GPT-4, a local model, a reward or people: run, probe, export.

    Examples:
      suite judge --help
      suite judge run dpo.jsonl ppo.jsonl --judge openai:gpt-4o --template summarization_c --dry-run
    """
    return judge_main(["--help"])


@one_line_errors
def main() -> int:
    if sys.argv[1:2] == ["judge"]:
        return judge_main(sys.argv[2:])
    commands: dict[str, Callable[..., int]] = {"check-method": check_method, "doctor": doctor, "judge": judge}
    return tyro.extras.subcommand_cli_from_dict(commands, prog="suite", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
