"""Answers → verdicts → win rates: the table and the numbers behind it, without texts; and, asked for, the texts as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from suite.errors import UserError
from suite.evaluation.generation_health import generation_health
from suite.evaluation.win_rate import ask, scores, win_rate
from suite.files import write_atomically
from suite.judges.judging import LEARNED, OWN_JUDGE, Comparison, Judge
from suite.judges.reward_judge import RewardJudge
from suite.judges.verdict_store import VerdictStore
from suite.maths.statistics import Interval
from suite.rewards.reward_model import RewardModel
from suite.runs.answer_study import Answers
from suite.runs.run_store import RunSpec, facts
from suite.runs.stages import snapshots


@dataclass(frozen=True)
class Measured:
    """Answers with their place in a figure: of which panel they are a point, and at which `x`."""

    panel: str
    answers: Answers
    x: float

    @property
    def name(self) -> str:
        """For tables of verdicts and files of answers."""
        during = f", {self.x:g} of training" if self.panel == "training" else ""
        return f"{self.answers.answerer.name}, T = {self.answers.temperature:g}{during}"


def reward_model_judge(name: str, root: Path, spec: RunSpec, device: str) -> RewardJudge:
    """One of the study's own reward models as a judge."""
    return RewardJudge(name, RewardModel.load(spec.directory(root) / "model", device=device), digest=spec.key)


def answer_table(root: Path, answers: Answers) -> pd.DataFrame:
    """Each prompt's answer. Of Best-of-n the sample with the highest score among the first n.

    Returns:
        One row per prompt: `prompt_id`, `prompt_text` (as the policy saw it), `shown` (as people read it), `answer` (the
        reference's) and `answer_cut` (at the policies' length limit), `text`, `ids`, `tokens`, `truncated`, `reference_logps`.
    """
    frame = pd.read_parquet(answers.run.directory(root) / "completions.parquet")
    if answers.scores is not None:
        learned = pd.read_parquet(answers.scores.directory(root) / "scores.parquet")
        frame = frame.merge(learned, on=["prompt_id", "sample"])
        frame = frame[frame["sample"] < answers.answerer.n]
        frame = frame.loc[frame.groupby("prompt_id", sort=False)["score"].idxmax()]
    frame = frame[frame["sample"] == 0] if answers.scores is None else frame
    prompts = pd.read_parquet(answers.prompts.directory(root) / "prompts.parquet")
    return prompts[["prompt_id", "prompt_text", "shown", "answer", "answer_cut"]].merge(
        frame, on="prompt_id", validate="one_to_one"
    )


def comparisons(table: pd.DataFrame, *, as_policies_see: bool) -> list[Comparison]:
    """Each answer beside the reference answer.

    As people read them: the prompt in plain words, the whole reference answer. As policies see them, and reward models fitted
    on the same texts: the prompt as it is continued, both answers cut at the same length.
    """
    columns = ("prompt_text", "text", "answer_cut") if as_policies_see else ("shown", "text", "answer")
    prompts, texts, references = (table[column] for column in columns)
    if not as_policies_see:
        texts = texts.str.strip()
    return [Comparison(*row) for row in zip(table["prompt_id"], prompts, texts, references, strict=True)]


def judge_answers(
    root: Path, measured: Sequence[Measured], judge: Judge, *, seed: int, opponent: Answers | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Win rates against the reference answers, or against the answers of an `opponent`. Everything is asked at once, so that a
    limit on cost is one limit.

    Returns:
        One row per point: panel, x, method, setting, temperature, step, the counts and shares of `win_rate` with intervals, and
        the answers' health; one row per point and prompt: its `score` (1 won, 0 lost, the mean over orders); and every
        verdict as `suite judge run` writes them.

    Raises:
        UserError: From the judge, or a point without a valid verdict; what was answered by then is stored.
    """
    tables = [answer_table(root, point.answers) for point in measured]
    if opponent is not None:
        theirs = answer_table(root, opponent).set_index("prompt_id")["text"]
        tables = [table.assign(answer=(t := table["prompt_id"].map(theirs)).str.strip(), answer_cut=t) for table in tables]
    asked = [comparisons(table, as_policies_see=judge.name in (OWN_JUDGE, LEARNED)) for table in tables]
    number = {comparison: k for k, comparison in enumerate(dict.fromkeys(chain(*asked)))}  # equal answers are asked once
    with tqdm(total=2 * len(number), unit="verdict", desc=judge.name) as bar:
        verdicts = ask(judge, list(number), VerdictStore(root / "verdicts.sqlite"), seed=seed, on_answer=bar.update)
    rows, numbers, given = [], [], []
    for point, table, of_point in zip(measured, tables, asked, strict=True):
        answers = point.answers
        about = {
            "panel": point.panel, "x": point.x, "task": answers.prompts.config["task"], "method": answers.answerer.method,
            "setting": answers.answerer.setting, "temperature": answers.temperature, "step": _step(root, answers),
        }  # fmt: skip
        part = verdicts[verdicts["comparison"].isin([number[comparison] for comparison in of_point])]
        made = facts(root, answers.run)
        shares = _shares(part, point.name, seed)
        rows.append({**about, **shares, **generation_health(table), "run_key": answers.run.key[:16],
                     "git_sha": made["git_sha"], "created_at": made["created_at"]})  # fmt: skip
        found = scores(part)
        numbers.append(pd.DataFrame({**about, "prompt_id": found["prompt_id"], "score": found["score"]}))
        given.append(part.drop(columns="stored").assign(matchup=point.name, judge=judge.name))
    numbers_of_all, verdicts_of_all = (pd.concat(parts, ignore_index=True) for parts in (numbers, given))
    return pd.DataFrame(rows), numbers_of_all, verdicts_of_all


def _shares(verdicts: pd.DataFrame, name: str, seed: int) -> dict[str, Any]:
    """The fields of `win_rate` as columns, intervals as three."""
    try:
        result = win_rate(verdicts, seed=seed)
    except ValueError as error:
        raise UserError(f"{name}: no win rate: {error}") from error
    shares: dict[str, Any] = {}
    for field, value in vars(result).items():
        if isinstance(value, Interval):
            shares |= {field: value.mean, f"{field}_low": value.low, f"{field}_high": value.high}
        elif value is not None:
            shares[field] = value
    return {**shares, "n": result.win_rate.n}


def _step(root: Path, answers: Answers) -> int:
    """The optimizer step of the policy that answered; 0 for one that was not trained."""
    answerer = answers.answerer
    if answerer.run is None or answerer.run.stage != "train":
        return 0
    return int(snapshots(answerer.run.directory(root))[answerer.snapshot].name.removeprefix("step-"))


def sample_answers(root: Path, measured: Sequence[Measured], *, prompts: int) -> str:
    """What everybody answers to the first prompts, as Markdown."""
    tables = {point.name: answer_table(root, point.answers).set_index("prompt_id") for point in measured}
    shown = next(iter(tables.values())).head(prompts)
    lines = ["# Sample answers", "", "The first test prompts, one answer each."]
    for prompt_id, row in shown.iterrows():
        lines += ["", f"## {prompt_id}", "", _quoted(row["shown"]), "", f"*reference answer*:\n\n{_quoted(row['answer'])}"]
        lines += [f"\n*{name}*:\n\n{_quoted(table.loc[prompt_id, 'text'])}" for name, table in tables.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip().replace("<", "\\<").splitlines() or [""])


def write_answers(root: Path, measured: Sequence[Measured], folder: Path) -> list[Path]:
    """Every policy's answers, and the reference's, as JSONL for `suite judge run`: `prompt_id`, `prompt`, `completion`."""
    written = []
    for point in measured:
        table = answer_table(root, point.answers)
        task = point.answers.prompts.config["task"]
        files = {f"{task}_{point.name}": table["text"].str.strip(), f"{task}_reference": table["answer"]}
        for stem, texts in files.items():
            path = folder / ("".join(c if c.isalnum() or c in "._-" else "-" for c in stem) + ".jsonl")
            rows = pd.DataFrame({"prompt_id": table["prompt_id"], "prompt": table["shown"], "completion": texts})
            write_atomically(path, partial(rows.to_json, orient="records", lines=True, force_ascii=False))
            written.append(path)
    return sorted(set(written))
