"""The `suite` command: what serves other people's classes and files. The paper's own studies are started from experiments/."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pandas as pd
import tyro

from suite.analysis.choice import best_policy
from suite.analysis.records import read_results
from suite.cli import compare, forecast, judge, own_data, report, runs, watch, work
from suite.cli import gatt as ghost
from suite.cli.options import RUNS, write_rows
from suite.cli.ranges import Count, Folder, Name, Nats, Place, Seed, Temperature, check_words, in_range
from suite.common.errors import UserError, listed, one_line_errors, shown
from suite.common.machine import quiet_libraries, usable_device
from suite.common.sources import resolve_model
from suite.data.chat_template import render
from suite.data.doctor import examine, lines_of
from suite.data.preference_data import Prompt
from suite.data.tokenizers import load_tokenizer
from suite.data.trl_formats import to_trl
from suite.engine.rank_runs import lead_or_wait
from suite.policies.model_config import check_language_model, context_of, load_config
from suite.report.choice import policy_card
from suite.study.profiles import EMBEDDED
from suite.tasks.own_data import TASK
from suite.tasks.splits import pairs_of, read_rows
from suite.tasks.text_format import prompt_ids

DOCTOR_TOKENS = 256
"""Of a prompt, and of an answer, where the command line does not say."""


def check_method(name: Annotated[Name, tyro.conf.Positional]) -> int:
    """Try a method on the exact world and print what it keeps and what it breaks. Under 30 seconds, on the CPU.

    Examples:
      suite check-method dpo                  a registered method
      suite check-method my_pkg.kto:KTO       a class of your own, importable from here

    Args:
        name: A registered method or module:Class.
    """
    results = compare.run_checks(name)
    failed = sum(not result.ok for result in results)
    print(f"\n{name}: {failed} of {len(results)} checks failed" if failed else f"\n{name}: all {len(results)} checks passed")
    return 1 if failed else 0


def doctor(
    source: Annotated[Name, tyro.conf.Positional],
    tokenizer: Name = EMBEDDED,
    max_prompt_tokens: Count | None = None,
    max_new_tokens: Count | None = None,
) -> int:
    """Say what is wrong with preference data before anything is trained on them. Exit code 1 if there are errors.

    Reads every format that TRL documents, and the common others: chosen and rejected, with or without prompt, as text or as
    conversations, with columns of many names. The first line says which columns were read.

    Examples:
      suite doctor pairs.jsonl
      suite doctor my_data/ --tokenizer gpt2               a folder with train.jsonl and test.jsonl: leaks are found too
      suite doctor trl-lib/ultrafeedback_binarized --tokenizer Qwen/Qwen3-0.6B

    Args:
        source: JSONL, CSV or parquet file, folder of them or of save_to_disk, or Hub name.
        tokenizer: Folder or Hub name of the model that will be trained; default: the embedded model's.
        max_prompt_tokens: Longer prompts are left out. Default of both: 256, or half the context if that is less.
        max_new_tokens: Longer answers, EOS included, are cut.
    """
    quiet_libraries()
    folder, _ = resolve_model(tokenizer, weights=False)
    loaded = load_tokenizer(folder, f"--tokenizer {tokenizer}")
    half = DOCTOR_TOKENS
    if (Path(folder) / "config.json").exists():
        half = min(half, (context_of(load_config(folder)) or 2 * half) // 2)
        lengths = (max_prompt_tokens or half, max_new_tokens or half)
        check_language_model(folder, f"--tokenizer {tokenizer}", *lengths)
    pairs = pairs_of(TASK.form, source, read_rows(TASK.form, source), loaded)
    report = examine(pairs, loaded, max_prompt_tokens=max_prompt_tokens or half, max_new_tokens=max_new_tokens or half)
    print(f"{shown(source)}: " + ", ".join(f"{split} {count:,} rows" for split, count in report.rows.items()))
    print("\n".join(map(shown, lines_of(report))))
    return 0 if report.ok else 1


def sample(
    policy: Annotated[Name, tyro.conf.Positional], prompt: Annotated[str, tyro.conf.Positional], samples: Count = 4,
    max_new_tokens: Count = 64, temperature: Temperature = 1.0, chat: bool = False, seed: Seed = 0,
    runs: Folder = RUNS, device: Name = "cpu",
) -> int:  # fmt: skip
    """Say what a trained policy answers to a prompt.

    Examples:
      suite sample suite/assets/imdb-gpt2 "This film was"
      suite sample 1f0c59b0 "This film was" --temperature 0       the last policy of a run, by the first letters of its key
      suite sample results/runs/policy/1f0c59b0a1b2c3d4 "Hello" --chat
      suite sample 1f0c59b0 --samples 1 -- "--a prompt that begins with dashes"

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
    from suite.study.artefacts import open_policy

    quiet_libraries()
    opened = open_policy(policy, runs, device=usable_device(device))
    base = getattr(opened, "base", opened)
    tokenizer, text = base.tokenizer, prompt
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"--chat: the tokenizer of {policy} has no chat template; leave --chat out")
        text = render(tokenizer, [{"role": "user", "content": prompt}], to_be_answered=True)
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
        said = shown(text + completion.text, keep="\n\t")
        print(f"--- {number} of {len(drawn)}: {len(completion.ids)} tokens, {end}\n{said}\n")
    return 0


def export(
    run: Annotated[Name, tyro.conf.Positional],
    out: Annotated[Place, tyro.conf.Positional],
    form: Literal["preference", "unpaired", "prompts"] = "preference",
    best: bool = False,
    kl: Nats = 6.0,
    method: str = "",
    runs: Folder = RUNS,
) -> int:
    """Write the preference pairs of a run for TRL's trainers; or the best policy of a study as a plain model folder.

    Examples:
      suite export 5d0a1c2b pairs.jsonl                   chosen and rejected, with tokens, rewards and log-probs beside
      suite export 5d0a1c2b labelled.parquet --form unpaired
      suite export results/imdb_frontier my_model --best --kl 6           weights, tokenizer and a card
      suite export results/imdb_frontier my_model --best --kl 6 --method DPO

    Args:
        run: Of the stage pairs or reference_log_probs: folder, or first letters of its key, as the plan shows it. With --best
            the results folder of a study that measured reward and KL.
        out: JSONL or parquet file; with --best a new folder.
        form: preference, unpaired (KTO) or prompts.
        best: Write the policy with the most reward on validation prompts.
        kl: Of those that spend at most so many nats per completion there.
        method: Of this method only, as tables name it.
        runs: Where runs are kept.
    """
    from suite.study import artefacts

    if best:
        quiet_libraries()
        results = read_results(Path(run))
        choice = best_policy(results, max_kl=kl, method=method)
        artefacts.export_policy(choice.run, choice.step, out, runs, card=policy_card(choice, results, max_kl=kl))
        print(f"{choice.name} written to {out}: a save_pretrained folder with its card, README.md")
        return 0
    table = write_rows(out, lambda: pd.DataFrame(to_trl(artefacts.pairs_of(run, runs), form)))
    print(f"{len(table):,} rows written to {out}: {listed(table.columns)}")
    return 0


Command = Callable[..., int] | Mapping[str, Any]
COMMANDS: Mapping[str, Command] = {
    "compare": compare.compare, "own-data": own_data.own_data, "gatt": ghost.gatt, "check-method": check_method,
    "doctor": doctor, "judge": judge.COMMANDS, "sample": sample, "export": export, "runs": runs.COMMANDS, "work": work.work,
    "forecast": forecast.forecast, "report": report.report, "watch": watch.watch,
}  # fmt: skip


def run(of: Command, prog: str, description: str, args: Sequence[str]) -> int:
    """Run the command that `args` begin with, of several; or the one that there is. With --help alone, name them."""
    if callable(of):
        return tyro.cli(in_range(of), prog=prog, description=description, args=args, config=(tyro.conf.OmitArgPrefixes,))
    if args and args[0] in of:
        return run(of[args[0]], f"{prog} {args[0]}", help_of(of[args[0]]), args[1:])
    kinds = [
        Annotated[Any, tyro.conf.subcommand(name, description=help_of(command).partition("\n")[0], constructor=lambda: 0)]
        for name, command in of.items()
    ]
    any_of_them: Any = Union[tuple(kinds)]  # noqa: UP007 - of a tuple made here
    return tyro.cli(any_of_them, prog=prog, description=description, args=args)


def help_of(command: Command) -> str:
    """What a command does, with examples: its docstring without the arguments, which stand below."""
    known = {compare.compare: compare.__doc__, own_data.own_data: own_data.__doc__, ghost.gatt: ghost.__doc__}
    if callable(command):
        text = known.get(command, command.__doc__)
    else:  # of a group, what its module says
        text = sys.modules[next(iter(command.values())).__module__].__doc__
    return inspect.cleandoc(text or "").partition("\n\nArgs:")[0]


@one_line_errors
def main() -> int:
    lead_or_wait()
    check_words(sys.argv[1:])
    return run(COMMANDS, "suite", str(__doc__), sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
