"""What the doors of win-rate experiments share: their options, and from a study to a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.cli.options import RESULTS, JudgeOptions, MachineOptions
from suite.cli.ranges import Name, Rank, Seed, Workers
from suite.common.registry import load
from suite.evaluation.win_rate_evaluator import WinRateEvaluator
from suite.interfaces import Contender, Task
from suite.report.curves import write_curves
from suite.report.page import Verdict
from suite.report.texts import win_rate_about
from suite.study.plan import Grid, plan_study
from suite.study.profiles import text_study
from suite.study.run import Finished, run_study
from suite.study.study import Study


@dataclass(frozen=True)
class TextOptions(MachineOptions, JudgeOptions):
    """Options of every experiment on texts with human preferences."""

    profile: Literal["smoke", "local", "rehearsal", "paper"] = "smoke"
    """smoke: made-up texts and the embedded model, to try the pipeline; local: SmolLM2-135M-Instruct on a CPU; paper: the
    paper's models, GPU and network; rehearsal: that with a few texts and steps, to see whether it runs."""
    pairs: Name | None = None
    """Preference data: Hub name, local folder or file. Default: the profile's."""
    answers: Name | None = None
    """Prompts with reference answers: Hub name, local folder or file. Default: the profile's."""
    model: Name | None = None
    """Language model: folder or Hub name. Default: the profile's."""
    seed: Seed = 0
    """Training seed."""
    lora_rank: Rank | None = None
    """Methods train adapters of this rank instead of all weights (0: all); fine-tuning before them and reward models do not.
    Default: the profile's."""
    workers: Workers = 1
    """Processes that share the cores; 0: one per core up to 8."""

    def study(self, task: str) -> Study:
        """The profile's study of a task, with what the command line replaces."""
        return text_study(
            task, self.profile, pairs=self.pairs, answers=self.answers, model=self.model, lora_rank=self.lora_rank,
            own_judge=bool(self.judge_model), runs=self.runs, **self.machine,
        )  # fmt: skip


def reference_of(study: Study) -> Contender:
    """π_ref by its name: Preferred-FT where it is fine-tuned on chosen answers."""
    chosen = study.sft is not None and getattr(load(study.task, "task"), "on_chosen", False)
    return Contender("Preferred-FT" if chosen else "SFT", "(reference)")


def run_win_rates(
    options: TextOptions, study: Study, grid: Grid, evaluator: WinRateEvaluator, *, name: str, title: str, paper: str = "",
    paper_rates: Mapping[str, Mapping[str, str]] | None = None, opponent: tuple[str, float] | None = None,
    other_task: tuple[str, str] | None = None, reference: bool = True, against: str = "DPO",
    verdict: Verdict | None = None, out: Path | None = None,
) -> int:  # fmt: skip
    """Plan, run, judge and write; the exit code.

    Args:
        options: Machine and judge.
        study, grid, evaluator, opponent, other_task: See `suite.study.plan.plan_study`.
        name, out: Of the results folder, to which the profile is added; the whole folder in its place.
        title, paper, paper_rates, against, verdict: See `suite.report.curves.write_curves`.
        reference: π_ref is a contender.
    """
    task: Task = load(other_task[0] if other_task else study.task, "task")
    options.check(task, dry_run=options.dry_run)
    plan = plan_study(
        study, grid, evaluator, seeds=[options.seed], reference=reference_of(study) if reference else None, opponent=opponent,
        other_task=other_task, judge_model=options.judge_model,
    )  # fmt: skip
    template = options.template_for(task)

    def write(finished: Finished, folder: Path) -> str:
        about = win_rate_about(
            finished, title=title, judge=options.judge, template=template, paper=paper, paper_rates=paper_rates or {},
            against=against,
        )  # fmt: skip
        return write_curves(finished, folder, about=about, prompts=options.samples, verdict=verdict)

    return run_study(
        plan, write, out=out or options.out or RESULTS / f"{name}_{study.profile}", options=options.run_options(),
        judge=lambda: options.open(plan, task, options.runs), judge_name=options.judge, answers=options.write_answers,
    )  # fmt: skip
