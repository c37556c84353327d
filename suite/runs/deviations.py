"""What a study does otherwise than the DPO paper: a table written by the machine from the settings it ran with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.data.tasks.imdb_sentiment import MAX_PREFIX, MIN_PREFIX
from suite.registry import load_method
from suite.runs.study import Study, method_config, rates_note

UNSPECIFIED = "not specified"


def deviations(study: Study, grid: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> pd.DataFrame:
    """One row per item of the paper's IMDb protocol (sec. 6, App. B, C.1 of arXiv:2305.18290): paper, this run, same or not.

    An item on which the paper is silent is marked as our choice.
    """
    optim = study.optim

    def values(method: str, key: str) -> str:
        return ", ".join(str(setting[key]) for setting in grid.get(method, ()) if key in setting) or "not run"

    methods = {name: load_method(name) for name in grid}

    def ppo(key: str, unit: str = "") -> str:
        configs = {n: method_config(m, n, {}, study) for n, m in methods.items() if key in m.Config.__dataclass_fields__}
        return "; ".join(f"{name} {config[key]}{unit}" for name, config in configs.items()) or "not run"

    rates = {
        name: f"{study.learning_rates.get(name, method.Config().optim.lr):g}"
        for name, method in methods.items()
        if not method.evaluated_from_pool
    }
    name = Path(study.reference).name if Path(study.reference).exists() else study.reference
    judge = Path(study.gold_reward).name if Path(study.gold_reward).exists() else study.gold_reward
    own = [method for method in rates if method not in study.learning_rates]
    choice = rates_note(study) or (
        "equal-size search on validation prompts by the area under the hull; of a method steered to a target KL the largest rate "
        "within 0.02 of the best" + (f"; not for {', '.join(own)}, which have their own default" if own else "")
    )
    ties = "identical completions and equal rewards dropped and counted"
    if study.labels == "bradley_terry":
        ties = "identical completions dropped and counted, equal rewards labelled by a coin"
    items = [
        ("base model", "gpt2-large", name),
        ("SFT", "subset of the IMDb training reviews, 1 epoch", f"{study.sft.texts} reviews" if study.sft else "the model is already trained on IMDb"),
        ("gold reward model", "siebert/sentiment-roberta-large-english", judge),
        ("gold reward", "P(positive) of prompt + completion (inferred from the figure's axis)", "P(positive) of prompt + completion (inferred from the figure's axis)"),
        ("prompts", "prefixes of IMDb reviews", f"prefixes of {study.reviews}" if study.reviews else "prefixes sampled from the reference"),
        ("prefix length, tokens", "2–8", f"{MIN_PREFIX}–{MAX_PREFIX}"),
        ("training prefixes", "25000", str(study.train_prompts)),
        ("completions per prefix", "4", str(study.completions_per_prompt)),
        ("pairs per prefix", "6", str(study.completions_per_prompt * (study.completions_per_prompt - 1) // 2)),
        ("labels", "hard", study.labels if study.labels == "hard" else f"Bradley-Terry, scale {study.bradley_terry_scale:g}"),
        ("optimizer", "RMSprop", "RMSprop"),
        ("learning rate", "1e-06", "; ".join(f"{m} {r}" for m, r in rates.items()) if set(rates.values()) - {"1e-06"} else "1e-06"),
        ("warm-up steps, linear", "150", str(optim.warmup_steps)),
        ("batch size, pairs", "64", str(optim.batch_size)),
        ("DPO β", "0.05, 0.1, 1, 5", values("dpo", "beta")),
        ("Unlikelihood α", "0.05, 0.1, 0.5, 1", values("unlikelihood", "alpha")),
        ("PPO target KL, learned reward", "3, 6, 9, 12", values("ppo", "target_kl")),
        ("PPO target KL, ground-truth reward", "3, 6, 9, 12", values("ppo_gt", "target_kl")),
        ("PPO target KL, ground-truth reward, TRL's defaults", "3, 6, 9, 12", values("ppo_gt_trl", "target_kl")),
        ("PPO optimizer", UNSPECIFIED, "Adam; share of the rate left at the end: " + ppo("final_lr")),
        ("PPO completions per run", UNSPECIFIED, str(study.on_policy_samples)),
        ("PPO rewards normalised", "yes (ground truth, tuned)", ppo("normalise_rewards")),
        ("PPO rewards as logits", "yes (TRL's defaults)", ppo("logit_rewards")),
        ("PPO passes over a rollout", "4 (TRL's defaults)", ppo("epochs_per_step")),
        ("PPO minibatch, completions", "16 (TRL's defaults)", ppo("minibatch_size")),
        ("PPO completions per step", "1024 (ground truth, tuned), 256 (TRL's defaults)", ppo("samples_per_step")),
        ("PPO controller's horizon", "10000 samples (TRL's defaults)", ppo("horizon", " of the run's samples")),
        ("PPO controller's gain on the KL at hand", "none (TRL's defaults)", ppo("gain")),
        ("reward model", "gpt2-large, 3 epochs, best validation accuracy", f"the reference, {study.reward_model.num_epochs} epochs, best validation accuracy"),
        ("evaluation", "every 100 steps", f"{optim.num_snapshots} evenly spaced snapshots per run"),
        ("completion length, tokens", UNSPECIFIED, str(study.max_new_tokens)),
        ("sampling", UNSPECIFIED, "temperature 1, no top-k, no top-p"),
        ("ties", UNSPECIFIED, ties),
        ("prefix split", UNSPECIFIED, f"disjoint: {study.train_prompts} training, {study.validation_prompts} validation, {study.test_prompts} test"),
        ("KL estimator", UNSPECIFIED, "exact per step over the vocabulary; k1 beside it"),
        ("epochs over the pairs", UNSPECIFIED, str(optim.num_epochs)),
        ("training seeds", UNSPECIFIED, ", ".join(map(str, seeds))),
        ("choice of learning rate", UNSPECIFIED, choice),
        ("arithmetic", UNSPECIFIED, f"training {optim.precision}; sampling of training data and pool {study.sampler_dtype}; evaluation float32"),
    ]  # fmt: skip
    frame = pd.DataFrame(items, columns=["item", "paper", "this run"])
    verdict = ["our choice" if paper == UNSPECIFIED else "same" if paper == ours else "differs" for _, paper, ours in items]
    return frame.assign(verdict=verdict)


PAPERS = {
    "hh_dialogue": {
        "model": "Pythia-2.8B, fine-tuned on the chosen answers", "pairs": "Anthropic/hh-rlhf, all (161k or 170k: two figures)",
        "DPO β": "0.1", "test prompts": "one-turn prompts of the test split, number not printed",
        "temperatures": "0.25, 0.7, 1 (the authors, in review)",
    },
    "tldr_summarization": {
        "model": "GPT-J, CarperAI/openai_summarize_tldr_sft", "pairs": "CarperAI/openai_summarize_comparisons, 92.5k",
        "DPO β": "0.5", "test prompts": "the test split, number not printed", "temperatures": "0 to 1",
    },
}  # fmt: skip
"""What sec. 6, App. B and C of arXiv:2305.18290 say of the two tasks with human preferences."""


def text_deviations(
    study: Any, judge: str, temperatures: Sequence[float], settings: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """(item, paper, here) of a win-rate study (`suite.runs.answer_study.AnswerStudy`); empty for data that the paper has not.

    Args:
        study: What is studied.
        judge: Who judges.
        temperatures: At which is sampled.
        settings: Method → its setting.
    """
    if (paper := PAPERS.get(study.task)) is None:
        return []
    name, pairs = (Path(s).name if Path(s).expanduser().exists() else s for s in (study.model, study.pairs))
    optim, rates = study.optim, study.learning_rates
    tuned = (
        "fine-tuned on the chosen answers" if study.sft and not study.answers else "fine-tuned" if study.sft else "as it comes"
    )
    return [
        ("model", paper["model"], f"{name}, {tuned}"),
        ("weights trained", "all", f"adapters of rank {study.lora_rank}" if study.lora_rank else "all"),
        ("pairs", paper["pairs"], f"{pairs}, at most {study.train_pairs:,}"),
        ("DPO β", paper["DPO β"], settings.get("DPO", "not run").removeprefix("beta = ")),
        ("optimizer, batch", "RMSprop, 64", f"RMSprop, {optim.batch_size}"),
        ("learning rate, DPO", "1e-06", f"{rates.get('dpo', optim.lr):g}"),
        ("warm-up steps", "150", str(optim.warmup_steps)),
        ("epochs", "not reported", str(optim.num_epochs)),
        ("longest prompt and answer, tokens", "not reported", f"{study.max_prompt_tokens} and {study.max_new_tokens}"),
        ("judge", "gpt-4-0314, which is retired; order of the answers drawn", f"{judge}, both orders"),
        ("test prompts", paper["test prompts"], f"{study.test_prompts}{', one-turn' if study.single_turn else ''}, at most"),
        ("temperatures", paper["temperatures"], ", ".join(f"{t:g}" for t in temperatures)),
    ]
