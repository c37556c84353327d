"""RLHF in the order of Llama 2 (Touvron et al. 2023, arXiv:2307.09288) on dialogues, beside DPO on the same mixture of pairs.

Safety pairs are those that people gave. Helpfulness pairs are samples of the model on the same prompts, ranked by a helpfulness
that a program can check (`suite.rewards.helpfulness`), with ratings by quartile of the gap: stand-ins where people gave none.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.data.ranked_pairs import best_and_worst
from suite.data.readers import names_of, sources_of
from suite.engine.store import RunSpec
from suite.rewards.helpfulness import helpfulness
from suite.study.plan import Grid
from suite.study.profiles import text_study
from suite.study.specs import Specs
from suite.study.study import Study, TwoRewards
from suite.tasks import made_up
from suite.tasks.hh_dialogue import TASK
from suite.tasks.splits import MADE_UP, read_rows, used
from suite.tasks.text_format import BAD_ROW
from suite.training.settings import OptimConfig

TWO, ONE = "two models", "one model of all pairs"
"""What methods with a reward learn from."""
REWARD_BATCH = 4
"""Pairs in a step of a reward model: after 5 steps of warm-up there must be some left."""
CANDIDATES = 4
"""Samples of a prompt, of which the best and the worst are a helpfulness pair."""
GRIDS: dict[str, Grid] = {
    TWO: {"rejection_sampling": [{}], "rejection_sampling_ppo": [{}], "ppo": [{}]},
    ONE: {"dpo": [{"beta": 0.1}], "ppo": [{}]},
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "ppo": {"samples_per_step": 16, "minibatch_size": 8},
        "rejection_sampling": {"n": 4, "samples_per_step": 16, "minibatch_size": 8},
        "rejection_sampling_ppo": {"n": 4, "samples_per_step": 16, "minibatch_size": 8},
    },
    "local": {
        "ppo": {"samples_per_step": 32, "minibatch_size": 16, "beta": 0.05},
        "rejection_sampling": {"n": 4, "samples_per_step": 32, "minibatch_size": 8},
        "rejection_sampling_ppo": {"n": 4, "samples_per_step": 32, "minibatch_size": 16, "beta": 0.05},
    },
}
RATES: dict[str, dict[str, float]] = {
    "smoke": {}, "local": {"ppo": 1e-4, "rejection_sampling": 1e-4, "rejection_sampling_ppo": 1e-4},
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"train_size": 64, "judge_pairs": 48, "test_prompts": 12, "on_policy_samples": 32},
    "local": {"train_size": 200, "judge_pairs": 200, "test_prompts": 48, "max_prompt_tokens": 128, "on_policy_samples": 128},
}
FLAG_WORDS = (
    "kill", "killing", "murder", "steal", "stealing", "rob", "drug", "drugs", "weapon", "gun", "bomb", "poison", "hurt", "hit",
    "beat", "attack", "hack", "hate", "racist", "illegal", "suicide", "die", "sex", "porn", "blackmail", "stalk", "burn",
)  # fmt: skip
"""Of prompts where the safety score counts, whatever it is."""


def reward_schedule(optim: OptimConfig) -> OptimConfig:
    """The paper's: one pass, a cosine to a tenth of the peak, warm-up over 3 % of the steps and at least 5."""
    return replace(
        optim, num_epochs=1, schedule="cosine", final_share=0.1, warmup_steps=10**9, warmup_share=0.03, least_warmup_steps=5
    )


@dataclass(frozen=True)
class Dialogues:
    """Where pairs are read, and the studies that are needed before there are helpfulness pairs."""

    profile: str
    safety: str  # pairs of people, as rows of dialogues
    study: Study  # of these alone

    @property
    def candidates(self) -> RunSpec:
        """Samples of the model as it is, on the prompts that methods learn from."""
        specs = Specs(replace(self.study, sft=None))
        prompts = specs.split("methods", self.study.train_size)
        return specs.samples("candidates for helpfulness pairs", CANDIDATES, {"train": prompts})

    def judge(self, seed: int) -> RunSpec:
        """The safety that measures: a reward model of the half of the safety pairs that nothing else sees."""
        return Specs(self.study).judge_model(seed)


def dialogues(profile: str, *, pairs: str | None, runs: Path, **machine: Any) -> Dialogues:
    """What the study begins with. Raises UserError for what is not there."""
    source = pairs or (MADE_UP if profile == "smoke" else TASK.pairs)
    if len(sources_of(source)) > 1:
        raise UserError(f"--pairs {source}: give one source of safety pairs; helpfulness pairs are made here")
    if source == MADE_UP:
        source = str(runs / "made_up" / "safety.jsonl")
        _write_rows(Path(source), made_up.dialogues())
    study = text_study("hh_dialogue", profile, pairs=source, runs=runs, **machine)
    settings = {**study.settings, **SETTINGS[profile]}
    rates = {**study.learning_rates, **RATES[profile]}
    changes = {"settings": settings, "learning_rates": rates, **SIZES[profile]}
    optim = replace(study.optim, num_snapshots=2)
    fitted = replace(reward_schedule(study.reward_model), batch_size=REWARD_BATCH, num_snapshots=1)
    return Dialogues(profile, source, replace(study, optim=optim, reward_model=fitted, **changes))


def helpful_rows(found: Dialogues, folder: Path) -> Iterator[dict[str, Any]]:
    """Helpfulness pairs with ratings, as rows of dialogues, of the finished run of `found.candidates`."""
    prompts = pd.read_parquet(folder.parent.parent / found.candidates.inputs["train"].directory(Path()) / "prompts.parquet")
    samples = pd.read_parquet(folder / "samples.parquet").merge(prompts[["prompt_id", "prompt_text"]], on="prompt_id")
    scores = helpfulness(samples["prompt_text"].tolist(), samples["text"].tolist())
    talks = conversations(found.safety)
    for row in best_and_worst(samples.assign(score=scores)).to_dict("records"):
        asked = [{"role": role, "content": content} for role, content in talks[row.pop("prompt_id")]]
        yield {"prompt": asked, **row}


def conversations(source: str) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Id of a prompt → its messages, of every row that can be read."""
    found = {}
    for rows in used(read_rows(TASK.form, source)).values():
        for row in rows:
            try:
                messages = TASK.form.read(row).messages
            except BAD_ROW:
                continue
            found[TASK.form.prompt_id(messages)] = messages
    return found


def with_mixture(found: Dialogues, helpful: Path, rows: list[dict[str, Any]]) -> dict[str, Study]:
    """Write the helpfulness pairs; and the studies of both kinds of pairs in equal shares: `TWO` reward models, or `ONE`.

    Prompts are those of the safety pairs; the reference is fine-tuned on the answers that people preferred there.
    """
    _write_rows(helpful, rows)
    source = f"{found.safety},{helpful}"
    safety, helpfulness_pairs = names_of(source)
    study = replace(found.study, source=source, weights=(0.5, 0.5), answers=found.safety)
    two = TwoRewards(helpfulness_pairs, safety, flag_words=FLAG_WORDS, margins="small")
    return {TWO: replace(study, two_rewards=two), ONE: study}


def _write_rows(path: Path, rows: Any) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(lines, encoding="utf-8"))
