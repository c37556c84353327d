"""Win rates of one file of answers over another, under GPT-4, a local model, a reward or people; order fools none of them."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro
from tqdm import tqdm

from suite.analysis.records import write_text
from suite.cli.options import write_rows
from suite.cli.ranges import Count, CountOrNone, Dollars, File, Folder, Name, Seed
from suite.common.errors import UserError
from suite.common.files import check_writable, write_atomically
from suite.common.machine import quiet_libraries
from suite.evaluation.win_rate import ask, win_rate
from suite.judges.bill import Limits
from suite.judges.judging import question_key, questions_of, shown
from suite.judges.open_judge import open_judge, parse_parameters
from suite.judges.openai_judge import OpenAIJudge
from suite.judges.outputs import join, read_answers
from suite.judges.probe import run_probes
from suite.judges.templates import load_template
from suite.judges.verdict_store import VerdictStore
from suite.report.page import code
from suite.report.texts import judged_page

Output = Annotated[File, tyro.conf.Positional]
STORE = Path("verdicts.sqlite")
NAMED = 5
"""Prompts without a verdict that are named on the screen and on the page."""


def run(
    policy: Annotated[Name, tyro.conf.Positional], opponent: Annotated[Name, tyro.conf.Positional], judge: str, template: str,
    column: str = "completion", opponent_column: str = "completion", split: str = "", opponent_split: str = "",
    subset: bool = False, order: Literal["both", "random"] = "both", seed: Seed = 0, parameters: str = "",
    store: File = STORE, out: Folder = Path("judged"), max_calls: CountOrNone | None = None, max_cost: Dollars | None = None,
    price: tuple[Dollars, Dollars] | None = None, concurrency: Count = 8, attempts: Count = 6, timeout: float = 60.0,
    device: Name = "cpu", dry_run: bool = False,
) -> int:  # fmt: skip
    """Ask a judge which of two answers is better, for every prompt, and print the win rate.

    Verdicts go into the store the moment they arrive; the same command asks only what is missing. The key of an OpenAI judge
    is read from OPENAI_API_KEY, the server from OPENAI_BASE_URL.

    Examples:
      suite judge run dpo.jsonl ppo.jsonl --judge openai:gpt-4o --template summarization_c --dry-run
      suite judge run dpo.jsonl ppo.jsonl --judge openai:gpt-4o --template summarization_c --max-cost 5
      suite judge run dpo.jsonl hh.jsonl --opponent-column chosen --judge local:my_model --template dialogue_helpfulness
      suite judge run dpo.jsonl sft.jsonl --judge reward:my_reward_model --template summarization_c
      suite judge run dpo.jsonl sft.jsonl --judge human:alice.csv --template summarization_c --order random

    Args:
        policy: Answers of the policy: JSONL, CSV, parquet, folder or Hub name, columns prompt and completion (and prompt_id).
        opponent: Answers of its opponent to the same prompts, or the data set with the reference answers.
        judge: openai:MODEL, local:FOLDER_OR_HUB_NAME, reward:FOLDER_OR_HUB_NAME or human:FILE.csv.
        template: summarization_s, summarization_c, news_article, dialogue_helpfulness, dialogue_harmlessness or sentiment.
        column: The policy's answers.
        opponent_column: The opponent's answers.
        split: Of the policy's source, if it has several.
        opponent_split: Of the opponent's source, if it has several.
        subset: The opponent may have more prompts, such as a whole data set; they are left out.
        order: both: every pair twice, either answer first; random: once, by a seeded coin (the paper).
        seed: Of the coin, the fences and the bootstrap.
        parameters: Of the request to an OpenAI judge, as JSON. Default: temperature 0 and max_tokens 200.
        store: SQLite file of verdicts, shared by all runs and judges.
        out: Folder for summary.md, win_rate.json and verdicts.csv.
        max_calls: Stop this run before more requests than this, retries included.
        max_cost: Stop this run before its bill can pass this, in USD.
        price: USD per million prompt and completion tokens, for an OpenAI judge whose price is not known here.
        concurrency: Requests at once.
        attempts: Requests per question before it counts as failed.
        timeout: Seconds for a whole reply.
        device: Of a local or reward judge.
        dry_run: Print calls, tokens and estimated price, and stop.
    """
    quiet_libraries()
    asked = load_template(template)
    answers = read_answers(policy, column, split=split), read_answers(opponent, opponent_column, split=opponent_split)
    comparisons = join(*answers, subset=subset)
    limits = Limits(max_calls, max_cost, concurrency, attempts, timeout)
    answering = open_judge(
        judge, asked, parameters=parse_parameters(parameters), seed=seed, limits=limits, price=price, device=device
    )
    there = os.path.lexists(store)
    verdicts = VerdictStore(store if there or not dry_run else Path(":memory:"), read_only=dry_run and there)
    questions = questions_of(comparisons, order=order, seed=seed)
    by_key = {question_key(answering, question): question for question in questions}  # equal answers make equal questions
    known = verdicts.verdicts(list(by_key))
    missing = [question for key, question in by_key.items() if key not in known]
    print(f"{len(comparisons):,} comparisons, {len(questions):,} questions, {len(missing):,} of them not in {store}")
    if isinstance(answering, OpenAIJudge):
        print(answering.estimate(missing))
    if dry_run:
        return 0
    check_writable(out)
    try:
        with tqdm(total=len(questions), unit="verdict", desc=shown(judge)) as bar:
            table = ask(answering, comparisons, verdicts, order=order, seed=seed, on_answer=bar.update)
    finally:
        if isinstance(answering, OpenAIJudge) and answering.bill.calls:
            print(answering.bill)
            if left := verdicts.left_in_flight:
                print(f"{left} questions were in flight when an earlier run was killed; they may be paid twice")
        print(f"{len(verdicts.verdicts(list(by_key))):,} of {len(by_key):,} verdicts are in {store}")
    names = {"judge": judge, "template": template, "matchup": matchup(policy, opponent), "order": order}
    about = {what: shown(name, 1000) for what, name in names.items()}
    _write(table, out, about, answering.identity, seed)
    return 1 if (table["winner"] == "failed").any() else 0


def _write(table: pd.DataFrame, out: Path, about: dict[str, str], identity: Mapping[str, Any], seed: int) -> None:
    """The results folder, and on the screen what failed and the page."""
    if invalid := int((table["winner"] == "invalid").sum()):
        print(f"{invalid} replies name no choice; suite judge export shows them (cut short? raise max_tokens in --parameters)")
    failed = table[table["winner"] == "failed"]
    prompts = failed.drop_duplicates("prompt_id")
    named = [f"prompt {shown(name)}: {shown(why, 300)}" for name, why in prompts[["prompt_id", "failure"]].head(NAMED).values]
    said = f"{len(failed):,} questions of {len(prompts):,} prompts have no verdict; verdicts.csv has all of them, the first are"
    if named:
        print("\n  ".join([f"{said}:", *named]))
    labelled = table.drop(columns="key").assign(**{name: about[name] for name in ("judge", "template", "matchup")})
    write_atomically(out / "verdicts.csv", lambda path: labelled.to_csv(path, index=False))
    try:
        result = win_rate(table, seed=seed)
    except ValueError as error:
        raise UserError(f"no win rate: {error}") from error
    content = json.dumps({**about, "identity": identity, **result.as_dict()}, indent=1)
    write_text(out / "win_rate.json", content + "\n")
    page = judged_page(about, result)
    if named:
        page += "\n".join([f"\n{said}:\n", *(f"- {code(line)}" for line in named)]) + "\n"
    write_text(out / "summary.md", page)
    print(f"\n{page}\n{out}/summary.md, win_rate.json, verdicts.csv")


def probe(judge: str, template: str, parameters: str = "", seed: Seed = 0, device: Name = "cpu") -> int:
    """Try tricks on a judge and print which fool it. Nothing is stored. Exit code 1 if one does, or is not answered.

    Examples:
      suite judge probe --judge openai:gpt-4o --template summarization_c
      suite judge probe --judge local:Qwen/Qwen3-0.6B --template dialogue_helpfulness

    Args:
        judge: As for run.
        template: As for run.
        parameters: As for run.
        seed: Of the fences.
        device: Of a local or reward judge.
    """
    quiet_libraries()
    asked = load_template(template)
    if judge.startswith("human:"):
        raise UserError("people are not probed; name another judge")
    results, answering = [], open_judge(judge, asked, parameters=parse_parameters(parameters), seed=seed, device=device)
    for result in run_probes(answering, asked):
        print(f"{result.name:<22} stands first: {result.outcomes[0]:<10} second: {result.outcomes[1]}", flush=True)
        results.append(result)
    tricks, fooled = results[1:], [result.name for result in results if result.fooled]
    print(f"\n{judge}: fooled by {len(fooled)} of {len(tricks)} tricks{': ' if fooled else ''}{', '.join(fooled)}")
    if "lost" in results[0].outcomes:
        print("it also prefers the plain bad answer, where that stands first or second: tricks are not its only weakness")
    if silent := [result.name for result in tricks if not result.answered]:
        print(f"no answer to {len(silent)}: {', '.join(silent)}")
    return 1 if fooled or silent else 0


def export(file: Output, store: File = STORE) -> int:
    """Write all verdicts of a store, texts and replies included, to a file.

    Examples:
      suite judge export verdicts.jsonl
      suite judge export verdicts.parquet --store paid/verdicts.sqlite

    Args:
        file: JSONL or parquet.
        store: SQLite file of verdicts.
    """
    if not os.path.lexists(store):
        raise UserError(f"--store {shown(store)}: does not exist")
    table = write_rows(file, lambda: VerdictStore(store, read_only=True).table())
    print(f"{len(table):,} verdicts written to {file}")
    return 0


def matchup(policy: str, opponent: str) -> str:
    """Names of the two sources; with their folders where the files' names are the same."""
    names = [Path(policy).stem, Path(opponent).stem]
    if names[0] == names[1]:
        names = [f"{path.parent.name}/{path.stem}" for path in (Path(policy), Path(opponent))]
    return " against ".join(names)


COMMANDS: dict[str, Callable[..., int]] = {"run": run, "probe": probe, "export": export}
