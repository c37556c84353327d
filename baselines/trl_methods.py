"""TRL's trainers as methods: DPO, KTO, SFT, GRPO and RLOO of the installed TRL, fed from our data, measured by our evaluators.

They train on exactly the tokens that our own methods train on (`baselines.trl_adapter`). Batches are ours too, in our order,
and so are optimizer, warm-up and precision; loss, reference log-probs, sampling and advantages are TRL's. A killed run starts
again (`resumable` is False).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from baselines.trl_adapter import (
    answer,
    dataset_of,
    id_tokenizer,
    import_trl,
    in_our_order,
    micro_batch,
    optimizers,
    positions_from_mask,
    reference_model,
    train_and_follow,
    trainer_arguments,
    without_cut,
    words,
)
from suite.errors import UserError
from suite.interfaces import Policy, Promise, RewardFunction, Run, TrainingData
from suite.training.loop import OptimConfig, epoch_order


@dataclass(frozen=True)
class TRLDPOConfig:
    """Settings of TRL's DPOTrainer; what is not here has TRL's default."""

    beta: float = 0.1
    loss_type: str = "sigmoid"
    """sigmoid, hinge, ipo, exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot, apo_zero, apo_down, discopop, …"""
    label_smoothing: float = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class TRLKTOConfig:
    """Settings of TRL's KTOTrainer. A batch of `batch_size` pairs is twice as many labelled completions."""

    beta: float = 0.1
    loss_type: str = "kto"
    """kto or apo_zero_unpaired."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))
    """The rate is DPO's; it was not searched."""


@dataclass(frozen=True)
class TRLSFTConfig:
    """Settings of TRL's SFTTrainer on chosen completions."""

    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class TRLGRPOConfig:
    """Settings of TRL's GRPOTrainer. Of `optim` learning rate, clip, precision and snapshots count; the optimizer is Adam."""

    beta: float = 0.04
    """Weight of the per-token KL estimate (k3) in the loss; TRL's default is 0, DeepSeekMath's 0.04."""
    num_steps: int = 32
    """Batches of completions."""
    samples_per_step: int = 128
    """Completions per batch."""
    num_generations: int = 8
    """Completions per prompt, whose rewards are compared with each other."""
    epochs_per_step: int = 1
    """Optimizer steps on each batch (μ)."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))


@dataclass(frozen=True)
class TRLRLOOConfig(TRLGRPOConfig):
    """Settings of TRL's RLOOTrainer: the KL is part of the reward, and the baseline is the mean of the prompt's others."""

    beta: float = 0.05
    num_generations: int = 4


class TRLDPO:
    """TRL's DPOTrainer (`loss_type` sigmoid: Eq. 7 of Rafailov et al. 2023). Logs what TRL logs, in TRL's names."""

    name: ClassVar[str] = "DPO (TRL)"
    Config: ClassVar[type] = TRLDPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "follows_optimum"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("trl",)

    def train(self, data: TrainingData, reference: Policy, config: TRLDPOConfig, run: Run) -> Policy:
        trl, eos = import_trl(), reference.tokenizer.eos_token_id  # type: ignore[attr-defined]
        rows = [
            {"prompt": words(p.chosen.prompt.ids, eos), "chosen": answer(p.chosen, eos), "rejected": answer(p.rejected, eos)}
            for p in in_our_order(data.pairs, config.optim, run.seed)
        ]  # fmt: skip
        tokens = [2 * len(p.chosen.prompt.ids) + len(p.chosen.ids) + len(p.rejected.ids) for p in data.pairs]

        def make(policy: Any, arguments: dict[str, Any]) -> Any:
            settings = trl.DPOConfig(
                **arguments, beta=config.beta, loss_type=[config.loss_type], label_smoothing=config.label_smoothing,
                max_length=None,
            )  # fmt: skip
            return trl.DPOTrainer(
                policy.model, reference_model(reference), args=settings, train_dataset=dataset_of(rows),
                processing_class=id_tokenizer(policy), optimizers=optimizers(policy, config.optim, arguments["max_steps"]),
            )  # fmt: skip

        return _train_offline(make, config.optim, reference, run, len(data.pairs), sum(tokens) * config.optim.num_epochs)


class TRLKTO:
    """TRL's KTOTrainer (Ethayarajh et al. 2024, arXiv:2402.01306): the chosen completions desirable, the rejected ones not."""

    name: ClassVar[str] = "KTO (TRL)"
    Config: ClassVar[type] = TRLKTOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("trl",)

    def train(self, data: TrainingData, reference: Policy, config: TRLKTOConfig, run: Run) -> Policy:
        trl = import_trl()
        eos, ordered = reference.tokenizer.eos_token_id, in_our_order(data.pairs, config.optim, run.seed)  # type: ignore[attr-defined]
        micro = micro_batch(config.optim, config.optim.batch_size)
        if micro < 2:
            raise UserError("KTO takes its KL from other prompts of a micro-batch; micro_batch_size must be 2 or more")
        sides = [
            {"prompt": words(p.chosen.prompt.ids, eos), "completion": answer(getattr(p, side), eos), "label": side == "chosen"}
            for at in range(0, len(ordered), micro)
            for side in ("chosen", "rejected")
            for p in ordered[at : at + micro]
        ]  # fmt: skip
        tokens = [2 * len(p.chosen.prompt.ids) + len(p.chosen.ids) + len(p.rejected.ids) for p in data.pairs]

        def make(policy: Any, arguments: dict[str, Any]) -> Any:
            arguments["per_device_train_batch_size"] *= 2
            settings = trl.KTOConfig(
                **arguments, beta=config.beta, loss_type=config.loss_type, desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight, max_length=None,
            )  # fmt: skip
            return trl.KTOTrainer(
                policy.model, reference_model(reference), args=settings, train_dataset=dataset_of(sides),
                processing_class=id_tokenizer(policy), optimizers=optimizers(policy, config.optim, arguments["max_steps"]),
            )  # fmt: skip

        return _train_offline(make, config.optim, reference, run, len(data.pairs), sum(tokens) * config.optim.num_epochs)


class TRLSFT:
    """TRL's SFTTrainer on the chosen completions: Preferred-FT with a loss per token instead of per completion."""

    name: ClassVar[str] = "Preferred-FT (TRL)"
    Config: ClassVar[type] = TRLSFTConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("trl",)

    def train(self, data: TrainingData, reference: Policy, config: TRLSFTConfig, run: Run) -> Policy:
        trl = import_trl()
        rows = [
            {"input_ids": [*c.prompt.ids, *c.ids], "labels": [-100] * len(c.prompt.ids) + list(c.ids)}
            for c in (pair.chosen for pair in in_our_order(data.pairs, config.optim, run.seed))
        ]
        tokens = sum(len(row["input_ids"]) for row in rows)

        def make(policy: Any, arguments: dict[str, Any]) -> Any:
            settings = trl.SFTConfig(**arguments, max_length=None)
            return trl.SFTTrainer(
                policy.model, args=settings, train_dataset=dataset_of(rows), processing_class=id_tokenizer(policy),
                optimizers=optimizers(policy, config.optim, arguments["max_steps"]),
            )  # fmt: skip

        return _train_offline(make, config.optim, reference, run, len(data.pairs), tokens)


class TRLGRPO:
    """TRL's GRPOTrainer (Shao et al. 2024, arXiv:2402.03300) on the learned reward.

    With the paper's own loss; the default of TRL is DAPO's.
    """

    name: ClassVar[str] = "GRPO (TRL)"
    Config: ClassVar[type] = TRLGRPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("trl",)
    trainer: ClassVar[str] = "GRPO"

    def train(self, data: TrainingData, reference: Policy, config: TRLGRPOConfig, run: Run) -> Policy:
        return _train_on_policy(self.trainer, data, data.reward, reference, config, run)


class TRLRLOO(TRLGRPO):
    """TRL's RLOOTrainer (Ahmadian et al. 2024, arXiv:2402.14740) on the learned reward."""

    name: ClassVar[str] = "RLOO (TRL)"
    Config: ClassVar[type] = TRLRLOOConfig
    trainer: ClassVar[str] = "RLOO"


def _train_offline(
    make: Callable[[Any, dict[str, Any]], Any], optim: OptimConfig, reference: Any, run: Run, examples: int, tokens: int
) -> Any:
    """Train on rows that are already in order, all epochs one after the other; only the very last batch may be short."""
    steps = -(-examples * optim.num_epochs // optim.batch_size)
    policy = reference.copy()
    arguments = trainer_arguments(policy, optim, run, batch=optim.batch_size, steps=steps)
    trainer = make(policy, {**arguments, "train_sampling_strategy": "sequential"})
    cut = policy.model.config.get_text_config().vocab_size
    trainer.train_dataset = trainer.train_dataset.map(
        lambda row: {name: without_cut(ids, cut) for name, ids in row.items() if name.endswith("_ids")}
    )
    return train_and_follow(trainer, policy, reference, optim, run, steps, lambda step: {"tokens": tokens * step / steps})


def _train_on_policy(
    kind: str, data: TrainingData, score: RewardFunction | None, reference: Any, config: TRLGRPOConfig, run: Run
) -> Any:
    """Train on the policy's own completions, which TRL draws and `score` judges as decoded text."""
    trl, policy, counted = import_trl(), reference.copy(), {"sampled": 0, "prompts": 0}
    assert score is not None
    if config.samples_per_step % config.num_generations:
        raise UserError(
            f"samples_per_step {config.samples_per_step} is no multiple of num_generations {config.num_generations}"
        )

    def reward(completion_ids: list[list[int]], text: list[str], **_: Any) -> list[float]:
        counted["sampled"] += sum(map(len, completion_ids))
        counted["prompts"] += sum(len(policy.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in text)
        return list(map(float, score(text, [policy.decode([i for i in ids if i != eos]) for ids in completion_ids])))

    needed = config.num_steps * config.samples_per_step // config.num_generations
    epochs = range(-(-needed // len(data.prompts)))
    order = [i for epoch in epochs for i in epoch_order(len(data.prompts), run.seed, epoch)][:needed]
    eos = policy.tokenizer.eos_token_id
    rows = [{"prompt": words(data.prompts[i].ids, eos), "text": data.prompts[i].text} for i in order]
    steps = config.num_steps * config.epochs_per_step
    arguments = trainer_arguments(policy, config.optim, run, batch=config.samples_per_step, steps=steps)
    folder = run.directory / "trl-reference"  # where TRL reads the reference from
    try:
        reference.save(folder)
        policy.model.config._name_or_path = str(folder)
        settings = getattr(trl, f"{kind}Config")(
            **arguments, beta=config.beta, num_generations=config.num_generations, num_iterations=config.epochs_per_step,
            steps_per_generation=arguments["gradient_accumulation_steps"], max_completion_length=data.max_new_tokens,
            shuffle_dataset=False, **({"loss_type": "grpo"} if kind == "GRPO" else {}),
        )  # fmt: skip
        trainer = getattr(trl, f"{kind}Trainer")(
            policy.model, reward, args=settings, train_dataset=dataset_of(rows), processing_class=id_tokenizer(policy),
            optimizers=optimizers(policy, config.optim, steps, torch.optim.Adam),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for model in filter(None, (policy.model, trainer.ref_model)):
        positions_from_mask(model)

    def tokens(_: int) -> dict[str, float]:
        seen = counted["sampled"] + counted["prompts"]
        scored = counted["sampled"] * (2 if config.beta else 1)  # by the reward, and by the reference
        return {"tokens": seen * config.epochs_per_step, "tokens_sampled": counted["sampled"], "tokens_scored": scored}

    return train_and_follow(trainer, policy, reference, config.optim, run, steps, tokens)
