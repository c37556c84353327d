"""A plan is carried out: everything that is missing is made, samples are measured, and a page is written of what was found."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd

from suite.common.files import check_writable, write_atomically
from suite.common.machine import check_gpus, workers_for
from suite.engine.engines import EngineName, Means
from suite.engine.making import closure
from suite.engine.rank_runs import launched
from suite.engine.store import reading
from suite.engine.sweep import print_plan, run_all
from suite.engine.tracking import Tracker
from suite.evaluation.best_of_n import kept_sample
from suite.interfaces import Context, Judge
from suite.judges.verdict_store import VerdictStore
from suite.maths.seeds_and_prompts import detectable_gap
from suite.study.plan import Plan, PlannedPoint
from suite.study.plan_file import write_studies

VERDICTS = "verdicts.sqlite"
"""In the folder of runs: what judges said."""
PROMPT_COLUMNS = ["prompt_id", "prompt_ids", "prompt_text", "shown", "answer", "answer_cut"]


@dataclass(frozen=True)
class Options:
    """Where and how runs are made; nothing here decides a result."""

    runs: Path  # where runs are kept, to be reused and resumed
    workers: int = 0  # processes that share the cores; 0: one per core up to 8, 1 on a GPU
    tracker: Tracker = "none"  # where training metrics go beside `metrics.jsonl`
    dry_run: bool = False  # print the plan, every run of it, and stop
    command: str = ""  # that was given, for pages
    verbose: bool = False  # print every run of the plan before it is carried out
    engine: EngineName = "processes"  # what makes the runs
    gpus: int = 1  # of each run that trains
    page_samples: int = 0  # test prompts whose completions stand in report.html

    def means(self, device: str) -> Means:
        """With what runs on a device are made."""
        gpus = self.gpus if self.gpus > 1 else launched()
        workers = workers_for(self.workers, device) if self.workers or gpus == 1 else 1
        if self.engine == "processes":
            check_gpus(gpus, workers, device)
        return Means(workers, self.tracker, self.engine, gpus)


@dataclass(frozen=True)
class Finished:
    """A plan whose runs are done, with what the study's own process measured."""

    plan: Plan  # less what failed
    options: Options  # as given; `workers` as they were
    judged: pd.DataFrame | None = None  # what `Evaluator.measure` returned, with a judge; `point` an index into `plan.points`
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # what the evaluator keeps beside its numbers: verdicts


Page = Callable[[Finished, Path], str]
"""Writes a results folder, and returns the words to be printed."""


def announce(plans: Mapping[str, Plan], options: Options, workers: int) -> None:
    """Say how what is made now (name → plan) can be watched in a browser."""
    try:
        path = write_studies(options.runs, plans, command=options.command, workers=workers)
        print(f"to watch it in a browser: suite watch {path}", flush=True)
    except (TypeError, ValueError) as error:  # an evaluator of the user's own that JSON cannot hold
        print(f"it cannot be watched in a browser: {error}", flush=True)


def run_study(
    plan: Plan, page: Page, *, out: Path, options: Options, judge: Callable[[], Judge] | None = None, judge_name: str = "",
    answers: Path | None = None,
) -> int:  # fmt: skip
    """Make, measure and write; the exit code is 1 if a contender failed and the others were measured without it.

    Args:
        plan, options: See `suite.study.plan.plan_study` and `Options`.
        page, out: Writes the results, and where.
        judge, judge_name: Opens the judge, for an evaluator that needs one, when all answers are there; named in the plan.
        answers: Also write all answers as JSONL into this folder, before any is judged.

    Raises:
        UserError: A folder cannot be written, the judge cannot be asked, what everything needs failed, or a run is damaged.
    """
    means = options.means(plan.study.device)
    print_plan(options.runs, plan.targets, means, whole=options.dry_run or options.verbose)
    if not plan.task.gives_pairs:
        per_prompt, batch = math.comb(plan.study.completions_per_prompt, 2), plan.study.optim.batch_size
        print(
            f"a step on pairs has {batch}, all {per_prompt} of a prompt together: {batch / per_prompt:.1f} prompts on average"
        )
    print(gap_line(plan))
    if judge_name:
        asked = sum(plan.prompts["test"].config["size"] for _ in plan.points)
        print(f"then the judge ({judge_name}): {2 * asked:,} questions at most, {len(plan.points)} points, both orders")
    if options.dry_run:
        return 0
    for folder in (options.runs, out):
        check_writable(folder)
    announce({out.name: plan}, options, means.workers)
    failed = {o.spec.key for o in run_all(options.runs, plan.targets, means)}
    left = plan.without(failed)
    options = replace(options, workers=means.workers)
    with reading(options.runs, closure(left.targets)):
        for path in write_answers(left, options.runs, answers) if answers else ():
            print(path)
        finished = Finished(left, options) if judge is None else judged(left, options, judge())
        words = page(finished, out)
    print(f"\n{words}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 1 if failed else 0


SCATTER = {"reward": 0.2, "win": 0.6}
"""Standard deviation over prompts of the difference of two policies: of P(positive) as in the default run, of wins at most."""
SPREAD = 0.015
"""Standard deviation of the difference over training seeds, per 0.2 of the above: 0.010 to 0.019 over twelve seeds of PPO,
Best-of-N and Unlikelihood less DPO (results/imdb_frontier_replication)."""


def gap_line(plan: Plan) -> str:
    """What a study of this size can tell apart, said before it is paid for."""
    prompts, seeds = plan.prompts["test"].config["size"], len(plan.sources)
    rivals = max(1, len({planned.contender.method for planned in plan.points}) - 2)
    scale, unit = SCATTER["win" if "win" in plan.evaluator.metrics else "reward"], ""
    if math.isinf(plan.study.reward_maximum) and "win" not in plan.evaluator.metrics:
        scale, unit = 1.0, " standard deviations of the reward"
    gap = detectable_gap(5 * rivals, seeds, prompts, scatter=scale, spread=SPREAD * scale / SCATTER["reward"])
    whom = "these policies" if seeds < 3 else "methods"
    return (
        f"{prompts} test prompts and {seeds} training seed{'s' * (seeds > 1)}: a true difference between {whom} of "
        f"{gap:.2g}{unit} or more would show four times in five"
        + ("; a verdict on methods takes three seeds" if seeds < 3 else "")
    )


def judged(plan: Plan, options: Options, judge: Judge) -> Finished:
    """All samples measured by an evaluator that needs a judge; verdicts are stored in the runs' folder as they arrive."""
    tables: dict[str, pd.DataFrame] = {}
    parts = [samples_of(options.runs, planned).assign(point=k, label=planned.name) for k, planned in enumerate(plan.points)]
    samples = pd.concat(parts, ignore_index=True)
    if plan.opponent:
        theirs = samples["prompt_id"].map(samples_of(options.runs, plan.opponent).set_index("prompt_id")["text"])
        samples = samples.assign(answer=theirs.str.strip(), answer_cut=theirs)
    store = VerdictStore(options.runs / VERDICTS)
    context = Context(judge=judge, store=store, seed=plan.study.seed, keep=tables.__setitem__)
    return Finished(plan, options, plan.evaluator.measure(samples, context), tables)


def samples_of(runs: Path, planned: PlannedPoint) -> pd.DataFrame:
    """The completions of a point with their prompts: one row each; of Best-of-N the one that is kept. The columns are those of
    `suite.interfaces.Evaluator.measure`, `step`, and `reference_logps` where it is known.
    """
    assert planned.samples is not None, "samples of the shared pool belong to no point"
    frame = pd.read_parquet(planned.samples.directory(runs) / "samples.parquet")
    if planned.scores:
        scores = pd.read_parquet(planned.scores.directory(runs) / "scores.parquet")
        frame = kept_sample(frame, scores, planned.contender.n)
    parts = []
    for split, part in frame.groupby("split", sort=False):
        prompts = pd.read_parquet(planned.samples.inputs[str(split)].directory(runs) / "prompts.parquet")
        parts.append(prompts[PROMPT_COLUMNS].merge(part, on="prompt_id", validate="one_to_many"))
    return pd.concat(parts, ignore_index=True)


def write_answers(plan: Plan, runs: Path, folder: Path) -> list[Path]:
    """Every policy's answers, and the reference's, as JSONL for `suite judge run`: `prompt_id`, `prompt`, `completion`."""
    written = []
    for planned in plan.points:
        table = samples_of(runs, planned)
        task = table["prompt_id"].iloc[0].rpartition("-")[0]
        files = {f"{task}_{planned.name}": table["text"].str.strip(), f"{task}_reference": table["answer"]}
        for stem, texts in files.items():
            path = folder / ("".join(c if c.isalnum() or c in "._-" else "-" for c in stem) + ".jsonl")
            rows = pd.DataFrame({"prompt_id": table["prompt_id"], "prompt": table["shown"], "completion": texts})
            write_atomically(path, partial(rows.to_json, orient="records", lines=True, force_ascii=False))
            written.append(path)
    return sorted(set(written))
