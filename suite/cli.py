"""The `suite` command. Studies are started from experiments/; here is what serves other people's classes and files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

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
    max_prompt_tokens: int = 256,
    max_new_tokens: int = 256,
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
        max_prompt_tokens: Longer prompts are left out.
        max_new_tokens: Longer answers, EOS included, are cut.
    """
    from transformers import AutoTokenizer

    from suite.data.doctor import examine, lines_of
    from suite.data.text_parts import pairs_of, read_rows
    from suite.data.text_tasks import load_task
    from suite.runs.sweep import quiet_libraries

    quiet_libraries()
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"--tokenizer {tokenizer}: cannot be loaded ({str(error).partition(chr(10))[0]})") from error
    pairs = pairs_of(source, read_rows(load_task("own_data"), source), loaded)
    report = examine(pairs, loaded, max_prompt_tokens=max_prompt_tokens, max_new_tokens=max_new_tokens)
    print(f"{source}: " + ", ".join(f"{split} {count:,} rows" for split, count in report.rows.items()))
    print("\n".join(lines_of(report)))
    return 0 if report.ok else 1


def sample(
    policy: Annotated[str, tyro.conf.Positional],
    prompt: Annotated[str, tyro.conf.Positional],
    samples: int = 4,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    chat: bool = False,
    seed: int = 0,
    runs: Path = Path("results/runs"),
    device: str = "cpu",
) -> int:
    """Say what a trained policy answers to a prompt.

    Examples:
      suite sample suite/assets/imdb-gpt2 "This film was"
      suite sample 1f0c59b0 "This film was" --temperature 0       the last policy of a run, by the first letters of its key
      suite sample results/runs/train/1f0c59b0a1b2c3d4 "Hello" --chat

    Args:
        policy: Run (folder or key, as the plan shows it), folder of a model, or Hub name.
        prompt: What it is to continue, or with --chat to answer.
        samples: How many answers.
        max_new_tokens: Length limit, EOS included.
        temperature: 0 is greedy.
        chat: Put the prompt through the tokenizer's chat template.
        seed: Of the sampling.
        runs: Where runs are kept.
        device: cpu or cuda.
    """
    from suite.data.preference_data import Prompt
    from suite.data.text_tasks import prompt_ids
    from suite.runs.artefacts import open_policy
    from suite.runs.sweep import quiet_libraries, usable_device

    quiet_libraries()
    opened = open_policy(policy, runs, device=usable_device(device))
    base = getattr(opened, "base", opened)
    tokenizer, text = base.tokenizer, prompt
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"--chat: the tokenizer of {policy} has no chat template; leave --chat out")
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if not (ids := prompt_ids(text, tokenizer)):
        raise UserError("the prompt is empty; give it at least one word")
    try:
        (drawn,) = opened.sample(
            [Prompt("prompt", tuple(ids), text)], num_samples=1 if temperature == 0 else samples,
            max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
        )  # fmt: skip
    except ValueError as error:  # a length or temperature out of range, in words
        raise UserError(str(error)) from error
    for number, completion in enumerate(drawn, 1):
        end = "cut" if completion.truncated else "ended"
        print(f"--- {number} of {len(drawn)}: {len(completion.ids)} tokens, {end}\n{text}{completion.text}\n")
    return 0


def export(
    run: Annotated[str, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    form: Literal["preference", "unpaired", "prompts"] = "preference",
    runs: Path = Path("results/runs"),
) -> int:
    """Write the preference pairs of a run for TRL's trainers.

    Examples:
      suite export 5d0a1c2b pairs.jsonl                   chosen and rejected, with tokens, rewards and log-probs beside
      suite export 5d0a1c2b labelled.parquet --form unpaired

    Args:
        run: Of the stage pairs or reference_log_probs: folder, or first letters of its key, as the plan shows it.
        out: JSONL or parquet file.
        form: preference, unpaired (KTO) or prompts.
        runs: Where runs are kept.
    """
    import pandas as pd

    from suite.data.trl_formats import to_trl
    from suite.files import write_atomically
    from suite.runs.artefacts import pairs_of

    if out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{out}: unknown ending; use .jsonl or .parquet")
    table = pd.DataFrame(to_trl(pairs_of(run, runs), form))
    if out.suffix == ".parquet":
        write_atomically(out, lambda path: table.to_parquet(path, index=False))
    else:
        write_atomically(
            out, lambda path: table.to_json(path, orient="records", lines=True, force_ascii=False, double_precision=15)
        )
    print(f"{len(table):,} rows written to {out}: {', '.join(table.columns)}")
    return 0


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
    commands: dict[str, Callable[..., int]] = {
        "check-method": check_method, "doctor": doctor, "judge": judge, "sample": sample, "export": export,
    }  # fmt: skip
    return tyro.extras.subcommand_cli_from_dict(commands, prog="suite", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
