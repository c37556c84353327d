"""What the win-rate experiments share: profiles, the judge, and the results folder. Not a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from answer_results import facts_of, write_results

from suite.errors import UserError
from suite.judges.judging import LEARNED, OWN_JUDGE

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Common:
    """Options of every win-rate experiment."""

    profile: Literal["smoke", "local", "paper"] = "smoke"
    """smoke: made-up texts and the embedded model, to try the pipeline; local: SmolLM2-135M-Instruct on a CPU; paper: the
    paper's models, GPU and network."""
    pairs: str | None = None
    """Preference data: Hub name, local folder or file. Default: the profile's."""
    answers: str | None = None
    """Prompts with reference answers: Hub name, local folder or file. Default: the profile's."""
    model: str | None = None
    """Language model: folder or Hub name. Default: the profile's."""
    judge: str = OWN_JUDGE
    """"reward model": fitted to the half of the pairs that no method sees, needs no key; "learned reward": the one that PPO and
    Best-of-N optimise; or openai:MODEL, local:MODEL, reward:FOLDER as in suite judge (people: --write-answers, then suite
    judge run)."""
    template: str = ""
    """What the judge is asked; default: the task's (suite judge run --help names them)."""
    max_cost: float | None = None
    """Of an OpenAI judge: stop before the bill can pass this, in USD; what was answered by then is kept."""
    price: tuple[float, float] | None = None
    """Of an OpenAI judge that is not known here: USD per million prompt and completion tokens."""
    parameters: str = ""
    """Of the request to an OpenAI judge, as JSON. Default: temperature 0 and max_tokens 200."""
    seed: int = 0
    """Training seed."""
    out: Path | None = None
    """Where tables and figures go. Default: a folder in results/ with the profile's name."""
    write_answers: Path | None = None
    """Also write all answers as JSONL into this folder, for suite judge run."""
    samples: int = 0
    """Also write everybody's answers to the first so many test prompts into samples.md: texts, maybe not yours to publish."""
    runs: Path = RESULTS / "runs"
    """Where runs and verdicts are kept, to be reused and resumed."""
    micro_batch_size: int | None = None
    """Examples per forward pass of training: changes memory and not the result. Default: the profile's."""
    lora_rank: int | None = None
    """Methods train adapters of this rank instead of all weights (0: all); fine-tuning before them and reward models do not.
    Default: the profile's."""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Also send training metrics there; TensorBoard reads RUNS/tensorboard, W&B stays offline without WANDB_API_KEY."""
    workers: int = 1
    """Processes that share the cores."""
    device: str = "auto"
    """cpu, cuda or auto."""
    dry_run: bool = False
    """Print the plan and stop."""


def parse_numbers(text: str, option: str, *, least: float = 0.0) -> list[float]:
    """Comma-separated numbers, each once, in order.

    Raises:
        UserError: Something else; names the option.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: expected comma-separated numbers, for example 0,0.5,1") from None
    if not all(least <= number < 1e6 for number in found) or len(set(found)) < len(found):
        raise UserError(f"{option} {text!r}: expected different numbers, {least:g} or more")
    return sorted(found)


def chosen_methods(methods: Mapping[str, Mapping[str, Any]], names: str, make: Any, seed: int) -> list[Any]:
    """The answerers of a profile's methods, or of those that --methods names (others with their defaults)."""
    from suite.runs.answer_study import Answerer

    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip())) or list(methods)
    found = []
    for name in chosen:
        method, setting = make.method(name), methods.get(name, {})
        if method.evaluated_from_pool:
            n = setting.get("n", method.Config().n)
            found.append(Answerer(method.name, f"n = {n}", n=n))
        else:
            found.append(make.train(name, setting, seed))
    return found


def over_temperatures(make: Any, policies: Sequence[Any], temperatures: Sequence[float], prompts: Any) -> list[Any]:
    """The points of every policy's curve; Best-of-N has none at temperature 0, where all samples are equal."""
    from suite.runs.judged import Measured

    return [
        Measured("temperature", make.answers(policy, t, prompts), t)
        for policy in policies
        for t in temperatures
        if t > 0 or policy.n == 1
    ]


def over_training(make: Any, policy: Any, temperature: float, prompts: Any) -> list[Any]:
    """The points of a policy's curve over its training run: the reference, then every snapshot."""
    from suite.runs.answer_study import Answerer
    from suite.runs.judged import Measured

    start = replace(make.answers(make.reference, temperature, prompts), answerer=Answerer(policy.method, policy.setting))
    count = make.study.optim.num_snapshots
    later = [
        make.answers(Answerer(policy.method, policy.setting, policy.run, k), temperature, prompts) for k in range(count)
    ]  # fmt: skip
    return [Measured("training", answers, k / count) for k, answers in enumerate([start, *later])]


def conduct(
    arguments: Common, study: Any, make: Any, measured: Sequence[Any], *, script: str, title: str, paper: str,
    opponent: Any = None, paper_rates: Mapping[str, Mapping[str, str]] | None = None,
) -> int:  # fmt: skip
    """Plan, run, judge and write; returns the exit code, 1 if a policy failed and the others were measured without it.

    Args:
        arguments: Of the script.
        study: What is studied.
        make: Its `AnswerRuns`.
        measured: The points to be judged.
        script: Name of the script, without ending: the results folder's name.
        title: Of figure and page.
        paper: The paper's numbers, as Markdown.
        opponent: `Answers` that all others are judged against; None: the reference answers.
        paper_rates: Method → temperature → the paper's win rate, to stand beside.

    Raises:
        UserError: The judge cannot be asked, or what everything needs failed.
    """
    from suite.data.text_tasks import load_task
    from suite.files import check_writable, write_atomically
    from suite.judges.templates import load_template
    from suite.runs.judged import judge_answers, reward_model_judge, sample_answers, write_answers
    from suite.runs.sweep import closure, print_plan, run_all

    own = arguments.judge in (OWN_JUDGE, LEARNED)
    judge_spec = make.reward_model(judge=arguments.judge == OWN_JUDGE) if own else None
    template = load_template(arguments.template or load_task(measured[0].answers.prompts.config["task"]).template)
    judge = None if own else other_judge(arguments, template, study.device, check_only=True)
    targets = [
        spec for answers in (*(p.answers for p in measured), *([opponent] if opponent else [])) for spec in answers.needs
    ]
    targets += [judge_spec] if judge_spec else []
    print_plan(arguments.runs, targets, workers=arguments.workers)
    asked = sum(point.answers.prompts.config["size"] for point in measured)
    print(f"then the judge ({arguments.judge}): {2 * asked:,} questions at most, {len(measured)} points, both orders")
    if arguments.dry_run:
        return 0
    out = arguments.out or RESULTS / f"{script}_{study.profile}"
    for folder in (arguments.runs, out):
        check_writable(folder)
    failed = {o.spec.key for o in run_all(arguments.runs, targets, workers=arguments.workers, tracker=arguments.tracker)}
    measured = [point for point in measured if failed.isdisjoint(spec.key for spec in closure(point.answers.needs))]
    needed = [*([judge_spec] if judge_spec else []), *(opponent.needs if opponent else [])]
    if not measured or not failed.isdisjoint(spec.key for spec in needed):
        raise UserError("what everything needs has failed: nothing can be measured; see error.log of the runs named above")
    if arguments.write_answers:
        for path in write_answers(arguments.runs, measured, arguments.write_answers):
            print(path)
    if judge_spec:
        judge = reward_model_judge(arguments.judge, arguments.runs, judge_spec, study.device)
    judge = judge or other_judge(arguments, template, study.device, check_only=False)
    tables = judge_answers(arguments.runs, measured, judge, seed=study.seed, opponent=opponent)
    facts = facts_of(arguments, study, make, measured, judge_spec, "" if own else template.name, opponent)
    if arguments.samples:
        text = sample_answers(arguments.runs, measured, prompts=arguments.samples)
        write_atomically(out / "samples.md", lambda path: path.write_text(text))
    write_results(out, tables, {**facts, "title": title, "paper_rates": paper_rates or {}}, paper=paper)
    return 1 if failed else 0


def other_judge(arguments: Common, template: Any, device: str, *, check_only: bool) -> Any:
    """A judge that is not the study's own; `check_only`: what can be said before anything is trained, None if that is all.

    Raises:
        UserError: It cannot judge: no key, no such model, or people, who need files.
    """
    import os

    from suite.judges.bill import Limits
    from suite.judges.open_judge import KINDS, PARAMETERS, open_judge

    kind, _, name = arguments.judge.partition(":")
    if kind not in ("openai", "local", "reward", "human") or not name:
        raise UserError(f"--judge {arguments.judge!r} is unknown; use {OWN_JUDGE!r}, {LEARNED!r}, {KINDS}")
    if kind == "human":
        raise UserError("--judge human: people judge files: write them with --write-answers FOLDER, then use suite judge run")
    if kind == "openai" and not os.environ.get("OPENAI_API_KEY", "").strip() and not arguments.dry_run:
        raise UserError("--judge openai: OPENAI_API_KEY is not set; export it (for a local server any word will do)")
    if kind != "openai" and check_only:
        from suite.sources import resolve_model

        resolve_model(name)
        return None
    try:
        parameters = json.loads(arguments.parameters) if arguments.parameters else PARAMETERS
    except ValueError as error:
        raise UserError(f"--parameters {arguments.parameters!r}: no JSON ({error})") from error
    limits = Limits(None, arguments.max_cost)
    return open_judge(
        arguments.judge, template, parameters=parameters, limits=limits, price=arguments.price, device=device
    )  # fmt: skip
