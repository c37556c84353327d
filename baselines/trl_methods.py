"""TRL's trainers as methods: DPO, KTO, SFT, GRPO and RLOO of the installed TRL, fed from our data, measured by our evaluators.

They train on exactly the tokens that our own methods train on (`baselines.trl_adapter`). Batches are ours too, in our order,
and so are optimizer, warm-up and precision; loss, reference log-probs, sampling and advantages are TRL's. A killed run starts
again (`resumable` is False).
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch

from baselines import trl_adapter
from baselines.trl_adapter import answer, words
from suite.common.errors import UserError
from suite.data.preference_data import PreferencePair
from suite.interfaces import Policy, Promise, Run, TrainablePolicy, TrainingData
from suite.training.loop import epoch_order
from suite.training.settings import OptimConfig


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


class TRLMethod:
    """What all of them share: a killed run starts again, and TRL's version is a part of a run's key."""

    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    one_process: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("trl",)
    trainer: ClassVar[str]  # TRL's name of it, without "Trainer"


class OfflineTRLMethod(TRLMethod, ABC):
    """A trainer on pairs that are in order already, all epochs one after the other; only the very last batch may be short."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    sides: ClassVar[tuple[str, ...]] = ("chosen", "rejected")  # of a pair, those that it trains on
    order: ClassVar[Callable[..., list[PreferencePair]]] = staticmethod(trl_adapter.in_our_order)  # in which it visits them

    @abstractmethod
    def rows(self, pairs: Sequence[PreferencePair], config: Any, eos: int) -> list[dict[str, Any]]:
        """What TRL reads, of pairs in order."""

    def settings(self, config: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        """Of TRL's config, by our own and what every trainer is told."""
        return {**arguments, **{f.name: getattr(config, f.name) for f in fields(config) if f.name != "optim"}}

    def train(self, data: TrainingData, reference: TrainablePolicy, config: Any, run: Run) -> Policy:
        optim, policy = config.optim, reference.copy()
        pairs = self.order(data.pairs, optim, run.seed)
        steps = -(-len(pairs) // optim.batch_size)
        settings = self.settings(config, trl_adapter.trainer_arguments(policy, optim, run, batch=optim.batch_size, steps=steps))
        trainer = trl_adapter.new_trainer(
            self.trainer, policy, self.rows(pairs, config, reference.tokenizer.eos_token_id),
            {**settings, "max_length": None, "train_sampling_strategy": "sequential"},
            trl_adapter.optimizers(policy, optim, steps),
            **({"ref_model": reference.copy().model.eval().requires_grad_(False)} if "rejected" in self.sides else {}),
        )  # fmt: skip
        cut = policy.model.config.get_text_config().vocab_size
        trainer.train_dataset = trainer.train_dataset.map(
            lambda row: {name: trl_adapter.without_cut(ids, cut) for name, ids in row.items() if name.endswith("_ids")}
        )
        trained_on = (getattr(pair, side) for pair in pairs for side in self.sides)
        tokens = sum(len(c.prompt.ids) + len(c.ids) for c in trained_on)
        return trl_adapter.train_and_follow(
            trainer, policy, reference, optim, run, steps, lambda step: {"tokens": tokens * step / steps}
        )


class TRLDPO(OfflineTRLMethod):
    """TRL's DPOTrainer (`loss_type` sigmoid: Eq. 7 of Rafailov et al. 2023). Logs what TRL logs, in TRL's names."""

    name: ClassVar[str] = "DPO (TRL)"
    Config: ClassVar[type] = TRLDPOConfig
    promise: ClassVar[Promise] = "follows_optimum"
    trainer: ClassVar[str] = "DPO"

    def rows(self, pairs: Sequence[PreferencePair], config: TRLDPOConfig, eos: int) -> list[dict[str, Any]]:
        return [
            {"prompt": words(p.chosen.prompt.ids, eos), "chosen": answer(p.chosen, eos), "rejected": answer(p.rejected, eos)}
            for p in pairs
        ]  # fmt: skip


class TRLKTO(OfflineTRLMethod):
    """TRL's KTOTrainer (Ethayarajh et al. 2024, arXiv:2402.01306): the chosen completions desirable, the rejected ones not.

    Its KL is of a prompt with the completion before it in the micro-batch, which must not answer that prompt: so prompts take
    turns.
    """

    name: ClassVar[str] = "KTO (TRL)"
    Config: ClassVar[type] = TRLKTOConfig
    trainer: ClassVar[str] = "KTO"
    order: ClassVar[Callable[..., list[PreferencePair]]] = staticmethod(trl_adapter.in_turns)

    def rows(self, pairs: Sequence[PreferencePair], config: TRLKTOConfig, eos: int) -> list[dict[str, Any]]:
        micro = trl_adapter.micro_batch(config.optim, config.optim.batch_size)
        if micro < 2:
            raise UserError("KTO takes its KL from other prompts of a micro-batch; micro_batch_size must be 2 or more")
        return [
            {"prompt": words(p.chosen.prompt.ids, eos), "completion": answer(getattr(p, side), eos), "label": side == "chosen"}
            for at in range(0, len(pairs), micro)
            for side in self.sides
            for p in pairs[at : at + micro]
        ]  # fmt: skip

    def settings(self, config: TRLKTOConfig, arguments: dict[str, Any]) -> dict[str, Any]:
        completions = 2 * arguments["per_device_train_batch_size"]
        return {**super().settings(config, arguments), "per_device_train_batch_size": completions}


class TRLSFT(OfflineTRLMethod):
    """TRL's SFTTrainer on the chosen completions: Preferred-FT with a loss per token instead of per completion."""

    name: ClassVar[str] = "Preferred-FT (TRL)"
    Config: ClassVar[type] = TRLSFTConfig
    trainer: ClassVar[str] = "SFT"
    sides: ClassVar[tuple[str, ...]] = ("chosen",)

    def rows(self, pairs: Sequence[PreferencePair], config: TRLSFTConfig, eos: int) -> list[dict[str, Any]]:
        return [
            {"input_ids": [*c.prompt.ids, *c.ids], "labels": [-100] * len(c.prompt.ids) + list(c.ids)}
            for c in (pair.chosen for pair in pairs)
        ]


class TRLGRPO(TRLMethod):
    """TRL's GRPOTrainer (Shao et al. 2024, arXiv:2402.03300) on the learned reward.

    With the paper's own loss; the default of TRL is DAPO's.
    """

    name: ClassVar[str] = "GRPO (TRL)"
    Config: ClassVar[type] = TRLGRPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    trainer: ClassVar[str] = "GRPO"
    settings: ClassVar[dict[str, Any]] = {"loss_type": "grpo"}

    def train(self, data: TrainingData, reference: TrainablePolicy, config: TRLGRPOConfig, run: Run) -> Policy:
        """Train on the policy's own completions, which TRL draws and the reward judges as decoded text."""
        policy, counted, score = reference.copy(), {"sampled": 0, "prompts": 0}, data.reward
        assert score is not None
        if config.samples_per_step % config.num_generations:
            raise UserError(
                f"samples_per_step {config.samples_per_step} is no multiple of num_generations {config.num_generations}"
            )
        if len(ends := getattr(policy, "end_ids", ())) > 1:
            raise UserError(
                f"{self.name}: TRL ends a completion at one token alone, this model at {len(ends)}; take ppo instead"
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
        arguments = trl_adapter.trainer_arguments(policy, config.optim, run, batch=config.samples_per_step, steps=steps)
        settings = {
            **arguments, **self.settings, "beta": config.beta, "num_generations": config.num_generations,
            "num_iterations": config.epochs_per_step, "steps_per_generation": arguments["gradient_accumulation_steps"],
            "max_completion_length": data.max_new_tokens, "shuffle_dataset": False,
        }  # fmt: skip
        adam = trl_adapter.optimizers(policy, config.optim, steps, torch.optim.Adam)
        folder = run.directory / "trl-reference"  # where TRL reads the reference from
        try:
            reference.save(folder)
            policy.model.config._name_or_path = str(folder)
            trainer = trl_adapter.new_trainer(self.trainer, policy, rows, settings, adam, reward_funcs=reward)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for model in filter(None, (policy.model, trainer.ref_model)):
            trl_adapter.positions_from_mask(model)

        def tokens(_: int) -> dict[str, float]:
            seen = counted["sampled"] + counted["prompts"]
            scored = counted["sampled"] * (2 if config.beta else 1)  # by the reward, and by the reference
            return {"tokens": seen * config.epochs_per_step, "tokens_sampled": counted["sampled"], "tokens_scored": scored}

        return trl_adapter.train_and_follow(trainer, policy, reference, config.optim, run, steps, tokens)


class TRLRLOO(TRLGRPO):
    """TRL's RLOOTrainer (Ahmadian et al. 2024, arXiv:2402.14740) on the learned reward."""

    name: ClassVar[str] = "RLOO (TRL)"
    Config: ClassVar[type] = TRLRLOOConfig
    trainer: ClassVar[str] = "RLOO"
    settings: ClassVar[dict[str, Any]] = {}
