"""Options that commands and scripts share, and how their texts become plain values."""

import math
import os
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import pandas as pd
import tyro

from suite.cli.ranges import (
    MOST,
    Count,
    CountOrNone,
    Dollars,
    Folder,
    Name,
    Workers,
    check_options,
    check_words,
    temperature_complaint,
)
from suite.common.errors import UserError, one_line_errors
from suite.common.files import write_atomically
from suite.common.sources import resolve_model
from suite.data.readers import names_of
from suite.engine.engines import EngineName, Means
from suite.engine.rank_runs import lead_or_wait
from suite.interfaces import Judge, Task
from suite.judges.bill import Limits
from suite.judges.judging import LEARNED, OWN_JUDGE
from suite.judges.open_judge import KINDS, open_judge, parse_parameters
from suite.judges.templates import load_template
from suite.policies.model_config import check_language_model, check_reward_model
from suite.report.page import code
from suite.study.plan import Plan
from suite.study.run import Options
from suite.study.study import Sampler

RESULTS = Path("results")
RUNS = RESULTS / "runs"
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("to_parquet", {"index": False}),
    ".jsonl": ("to_json", {"orient": "records", "lines": True, "force_ascii": False, "double_precision": 15}),
}
"""Ending of a file of rows → what writes it, and how."""
T = TypeVar("T")
Unnamed = Annotated[T, tyro.conf.arg(name="")]
"""Options that stand on the command line as if each were an argument of the command."""


def run_script(main: Callable[[T], int], options: type[T], description: str | None) -> NoReturn:
    """Start a script with the options of its command line, and end with its exit code; bad input gets one line."""

    def start() -> int:
        lead_or_wait()
        check_words(sys.argv[1:])
        given = tyro.cli(options, description=description)
        check_options(type(given), vars(given))
        return main(given)

    sys.exit(one_line_errors(start)())


@dataclass(frozen=True)
class MachineOptions:
    """Where and how runs are made."""

    out: Folder | None = None
    """Where tables and figures go. Default: a folder in results/ named after the experiment."""
    runs: Folder = RUNS
    """Where runs and verdicts are kept, to be reused and resumed."""
    micro_batch_size: Count | None = None
    """Completions per forward pass of training: changes memory and not the result. Default: the profile's."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send training metrics there; TensorBoard reads RUNS/tensorboard, W&B stays offline without WANDB_API_KEY."""
    workers: Workers = 0
    """Processes that share the cores; 0: one per core up to 8, 1 on a GPU. With submitit: jobs."""
    engine: EngineName = "processes"
    """What makes the runs: processes of this machine; workers, started by anybody with suite work; submitit, which starts them
    as jobs of SLURM; or ray, as tasks of a Ray cluster (docs/scaling.md)."""
    gpus: Count = 1
    """GPUs of each run that trains a model: its weights and batches are split over them. It is no part of a run's key."""
    device: Name = "auto"
    """cpu, cuda or auto."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of training and of the sampler; auto: bfloat16 where the hardware does it. It is part of every run's key."""
    sampler: Sampler = "own"
    """Who draws completions: the suite, with random numbers that policies share on a prompt, or vLLM, for large models on a GPU
    (docs/scaling.md). It is part of the keys of runs that draw."""
    page_samples: CountOrNone = 0
    """Also put the completions of the first so many test prompts into report.html: texts, maybe not yours to publish."""
    dry_run: bool = False
    """Print the plan, every run of it with what it takes, and stop; with --engine workers also write it."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Print every run of the plan before it is carried out."""

    @property
    def machine(self) -> dict[str, Any]:
        """What profiles are told of it."""
        return {"device": self.device, "precision": self.precision, "micro_batch_size": self.micro_batch_size,
                "sampler": self.sampler}  # fmt: skip

    def run_options(self) -> Options:
        """As plain values, with the command that was given."""
        return Options(self.runs, self.workers, self.tracker, self.dry_run, command(), self.verbose, self.engine, self.gpus,
                       self.page_samples)  # fmt: skip

    def means(self, device: str) -> Means:
        """With what runs on a device are made."""
        return self.run_options().means(device)

    def folder(self, name: str, profile: str) -> Path:
        """Where the results of an experiment go; by default those of every profile but embedded have it in their name."""
        return self.out or RESULTS / (name if profile == "embedded" else f"{name}_{profile}")


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges."""

    judge: Name = OWN_JUDGE
    """"reward model": fitted to the half of the pairs that no method sees, needs no key; "learned reward": the one that PPO and
    Best-of-N optimise; or openai:MODEL, local:MODEL, reward:FOLDER as in suite judge, or module:Class of your own (people:
    --write-answers, then suite judge run)."""
    template: str = ""
    """What the judge is asked; default: the task's (suite judge run --help names them)."""
    max_cost: Dollars | None = None
    """Of an OpenAI judge: stop before the bill can pass this, in USD; what was answered by then is kept."""
    price: tuple[Dollars, Dollars] | None = None
    """Of an OpenAI judge that is not known here: USD per million prompt and completion tokens."""
    parameters: str = ""
    """Of the request to an OpenAI judge, as JSON. Default: temperature 0 and max_tokens 200."""
    write_answers: Folder | None = None
    """Also write all answers as JSONL into this folder, for suite judge run."""
    samples: CountOrNone = 0
    """Also write everybody's answers to the first so many test prompts into samples.md: texts, maybe not yours to publish."""

    @property
    def judge_model(self) -> str:
        """Which of the study's own reward models judges, for `suite.study.plan.plan_study`; empty where another does."""
        return {OWN_JUDGE: "own", LEARNED: "learned"}.get(self.judge, "")

    def template_for(self, task: Task) -> str:
        """Its name; empty for a reward model, which is asked nothing. Raises UserError if there is none of that name."""
        if self.judge_model and not self.template:
            return ""
        name = load_template(self.template or task.template).name
        return "" if self.judge_model else name

    def check(self, task: Task, *, dry_run: bool) -> None:
        """Raise a UserError, before anything is trained, if the judge has no key or no model, or is people, who need files."""
        kind, _, name = self.judge.partition(":")
        if self.judge_model:
            return
        if not name:
            raise UserError(f"--judge {self.judge!r} is unknown; use {OWN_JUDGE!r}, {LEARNED!r}, {KINDS}")
        if kind == "human":
            raise UserError("--judge human: people judge files; write them with --write-answers FOLDER and use suite judge run")
        if kind == "openai" and not os.environ.get("OPENAI_API_KEY", "").strip() and not dry_run:
            raise UserError("--judge openai: OPENAI_API_KEY is not set; export it (for a local server any word will do)")
        if kind in ("local", "reward"):
            folder, _ = resolve_model(name)
            if kind == "local":
                check_language_model(folder, f"--judge {self.judge}", 0, 0)
            else:
                check_reward_model(folder, f"--judge {self.judge}")
        else:
            self._open(task, "cpu")

    def open(self, plan: Plan, task: Task, runs: Path) -> Judge:
        """The judge, when all answers are there. Raises UserError as `check` does."""
        if plan.judge_model is not None:
            from suite.judges.reward_judge import RewardJudge
            from suite.rewards.reward_model import RewardModel

            model = RewardModel.load(plan.judge_model.directory(runs) / "model", device=plan.study.device)
            return RewardJudge(self.judge, model, digest=plan.judge_model.key)
        return self._open(task, plan.study.device)

    def _open(self, task: Task, device: str) -> Judge:
        return open_judge(
            self.judge, load_template(self.template or task.template), parameters=parse_parameters(self.parameters),
            limits=Limits(None, self.max_cost), price=self.price, device=device,
        )  # fmt: skip


def command() -> str:
    """What was typed, to be repeated."""
    _, found, script = Path(sys.argv[0]).resolve().as_posix().rpartition("/experiments/")
    return shlex.join([*(["python", f"experiments/{script}"] if found else ["suite"]), *sys.argv[1:]])


def made_here(*more: str) -> str:
    """Command, date, machine, and what else is to be said, for the page of an experiment that is no study."""
    return f"{code(command())}  \n" + ", ".join((date.today().isoformat(), platform.machine(), *more))


def file_name(text: str) -> str:
    """A part of a folder's name: letters and digits as they are, a line for everything else."""
    return "".join(c if c.isalnum() else "_" for c in text)


def write_rows(out: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Make a table and write it in the form that the file's ending names. Raises UserError for an ending that is not known."""
    if out.suffix not in FORMS:
        raise UserError(f"{out}: unknown ending; use .jsonl or .parquet")
    (writer, how), table = FORMS[out.suffix], make()
    write_atomically(out, partial(getattr(table, writer), **how))
    return table


def parse_numbers(text: str, option: str, *, example: str = "0,0.5,1", least: float = 0.0, most: float = 1e6) -> list[float]:
    """Comma-separated numbers, each once, in order. Raises a UserError that names the option for anything else."""
    try:
        found = sorted(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text!r}: expected comma-separated numbers, for example {example}") from None
    if not all(least <= number <= most for number in found) or len(set(found)) < len(found):
        raise UserError(f"{option} {text!r}: expected different numbers from {least:g} to {most:.10g}, for example {example}")
    return found


def parse_temperatures(text: str, option: str = "--temperatures") -> list[float]:
    """Comma-separated temperatures, each once, in order. Raises UserError as `parse_numbers` does."""
    found = parse_numbers(text, option)
    for value in found:
        if words := temperature_complaint(value):
            raise UserError(f"{option} {text!r}: {value:g}: {words}")
    return found


def parse_integers(text: str, option: str, *, example: str, least: int = 0, most: int = MOST) -> list[int]:
    """Comma-separated whole numbers from `least` to `most`, each once, in order. Raises UserError as `parse_numbers` does."""
    found = parse_numbers(text, option, example=example, least=least, most=most)
    if any(number % 1 for number in found):
        raise UserError(f"{option} {text!r}: expected whole numbers, for example {example}")
    return [int(number) for number in found]


def parse_weights(text: str, source: str | None) -> tuple[float, ...]:
    """Shares of the comma-separated sources of preference data, which sum to 1 then; none of an empty text.

    Raises:
        UserError: Anything but one number above 0 for each source.
    """
    if not text:
        return ()
    names = names_of(source) if source else []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != len(names) or len(found) < 2 or not all(0 < weight < math.inf for weight in found):
        raise UserError(
            f"--weights {text!r}: expected one number above 0 for each source of --pairs, with commas between (there: "
            f"{', '.join(names) or 'none'}), for example --pairs a.jsonl,b.jsonl --weights 0.9,0.1"
        )
    return tuple(weight / sum(found) for weight in found)


def parse_seeds(text: str) -> list[int]:
    """Training seeds."""
    return parse_integers(text, "--seeds", example="0,1,2")


def parse_rates(text: str, option: str = "--rates") -> list[float]:
    """Learning rates."""
    return parse_numbers(text, option, example="1e-5,1e-4", least=1e-12, most=1.0)
