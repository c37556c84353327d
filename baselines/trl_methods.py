"""TRL's trainers as methods: DPO, KTO, SFT, GRPO and RLOO of the installed TRL, fed from our data, measured by our evaluators.

TRL reads text and tokenises it again, which would move the boundary between prompt and completion and add EOS to completions
that the length limit cut. So it is given texts whose words are the token ids, and a tokenizer that reads them: it trains on
exactly the tokens that our own methods train on. Batches are ours too, in our order, and so are optimizer, warm-up and
precision; loss, reference log-probs, sampling and advantages are TRL's. A killed run starts again (`resumable` is False).
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from suite.data.preference_data import Completion, PreferencePair
from suite.errors import UserError
from suite.interfaces import Policy, Promise, RewardFunction, Run, TrainingData
from suite.training.loop import NonFiniteLoss, OptimConfig, epoch_order, snapshot_steps

END, CUT = "<eos>", "<cut>"
"""Words for EOS and for "the length limit ended this": the latter is taken out again with the EOS that TRL puts behind it."""
RENAMED = {"learning_rate": "lr", "epoch": "", "step_time": "", "num_tokens": ""}
"""TRL's name of a metric → ours; those without one are left out: we count tokens ourselves."""


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
    optim: OptimConfig = field(default_factory=OptimConfig)


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

    def train(self, data: TrainingData, reference: Policy, config: TRLDPOConfig, run: Run) -> Policy:
        trl = import_trl()
        rows = [
            {"prompt": _words(p.chosen.prompt.ids), "chosen": _answer(p.chosen), "rejected": _answer(p.rejected)}
            for p in in_our_order(data.pairs, config.optim, run.seed)
        ]  # fmt: skip
        tokens = [2 * len(p.chosen.prompt.ids) + len(p.chosen.ids) + len(p.rejected.ids) for p in data.pairs]

        def make(policy: Any, arguments: dict[str, Any]) -> Any:
            settings = trl.DPOConfig(
                **arguments, beta=config.beta, loss_type=[config.loss_type], label_smoothing=config.label_smoothing,
                max_length=None,
            )  # fmt: skip
            return trl.DPOTrainer(
                policy.model, _reference_model(reference), args=settings, train_dataset=_dataset(rows),
                processing_class=id_tokenizer(policy), optimizers=_optimizers(policy, config.optim),
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

    def train(self, data: TrainingData, reference: Policy, config: TRLKTOConfig, run: Run) -> Policy:
        trl = import_trl()
        sides = [
            {"prompt": _words(p.chosen.prompt.ids), "completion": _answer(side), "label": side is p.chosen}
            for p in in_our_order(data.pairs, config.optim, run.seed)
            for side in (p.chosen, p.rejected)
        ]  # fmt: skip
        tokens = [2 * len(p.chosen.prompt.ids) + len(p.chosen.ids) + len(p.rejected.ids) for p in data.pairs]

        def make(policy: Any, arguments: dict[str, Any]) -> Any:
            arguments["per_device_train_batch_size"] *= 2
            settings = trl.KTOConfig(
                **arguments, beta=config.beta, loss_type=config.loss_type, desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight, max_length=None,
            )  # fmt: skip
            return trl.KTOTrainer(
                policy.model, _reference_model(reference), args=settings, train_dataset=_dataset(sides),
                processing_class=id_tokenizer(policy), optimizers=_optimizers(policy, config.optim),
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
                policy.model, args=settings, train_dataset=_dataset(rows), processing_class=id_tokenizer(policy),
                optimizers=_optimizers(policy, config.optim),
            )  # fmt: skip

        return _train_offline(make, config.optim, reference, run, len(data.pairs), tokens)


class TRLGRPO:
    """TRL's GRPOTrainer (Shao et al. 2024, arXiv:2402.03300) on the learned reward."""

    name: ClassVar[str] = "GRPO (TRL)"
    Config: ClassVar[type] = TRLGRPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    trainer: ClassVar[str] = "GRPO"

    def train(self, data: TrainingData, reference: Policy, config: TRLGRPOConfig, run: Run) -> Policy:
        return _train_on_policy(self.trainer, data, data.reward, reference, config, run)


class TRLRLOO(TRLGRPO):
    """TRL's RLOOTrainer (Ahmadian et al. 2024, arXiv:2402.14740) on the learned reward."""

    name: ClassVar[str] = "RLOO (TRL)"
    Config: ClassVar[type] = TRLRLOOConfig
    trainer: ClassVar[str] = "RLOO"


def import_trl() -> Any:
    """The installed TRL.

    Raises:
        UserError: None is installed.
    """
    try:
        import trl
    except ImportError as error:
        raise UserError('TRL is not installed; pip install "trl>=1,<2"') from error
    warnings.filterwarnings("ignore", "`.*gradient_checkpointing` is deprecated", FutureWarning)  # said by every trainer
    return trl


def in_our_order(pairs: Sequence[PreferencePair], optim: OptimConfig, seed: int) -> list[PreferencePair]:
    """All epochs one after the other, each in the order in which our own loop visits it."""
    return [pairs[i] for epoch in range(optim.num_epochs) for i in epoch_order(len(pairs), seed, epoch)]


def id_tokenizer(policy: Any) -> Any:
    """A tokenizer whose words are the decimal numbers of `policy`'s token ids: "17 4 <eos>" are the tokens 17, 4 and EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    size, eos = policy.model.config.get_text_config().vocab_size, policy.tokenizer.eos_token_id
    words = {END if i == eos else str(i): i for i in range(size)} | {CUT: size}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=CUT))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, additional_special_tokens=[CUT], padding_side="left"
    )


def _words(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _answer(completion: Completion) -> str:
    """What follows the prompt's words; a finished completion's last id is EOS."""
    body, end = (completion.ids, CUT) if completion.truncated else (completion.ids[:-1], END)
    return f" {_words(body)} {end}" if body else f" {end}"


def _dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(rows)


def without_cut(ids: Any, cut: int) -> Any:
    """Token ids without the mark of a cut completion and the EOS that TRL put behind it."""
    return ids[: ids.index(cut)] if isinstance(ids, list) and cut in ids else ids


def _reference_model(reference: Any) -> Any:
    return reference.copy().model.eval().requires_grad_(False)


def _optimizers(policy: Any, optim: OptimConfig, kind: Any = torch.optim.RMSprop) -> tuple[Any, Any]:
    """Our optimizer and warm-up, which are not among TRL's settings."""
    optimizer = kind([p for p in policy.model.parameters() if p.requires_grad], lr=optim.lr)
    warm = max(1, optim.warmup_steps)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm))


def _arguments(policy: Any, optim: OptimConfig, run: Run, *, batch: int, steps: int) -> dict[str, Any]:
    """What every TRL trainer is told: our batches, no files, no reports, no second GPU."""
    micro = next(size for size in range(min(optim.micro_batch_size, batch), 0, -1) if batch % size == 0)
    return {
        "output_dir": str(run.directory / "trl"), "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro, "max_steps": steps, "learning_rate": optim.lr,
        "max_grad_norm": optim.max_grad_norm, "seed": run.seed, "bf16": optim.precision == "bfloat16",
        "use_cpu": policy.device.type == "cpu", "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def _train_offline(
    make: Callable[[Any, dict[str, Any]], Any], optim: OptimConfig, reference: Any, run: Run, examples: int, tokens: int
) -> Any:
    """Train on rows that are already in order, all epochs one after the other; only the very last batch may be short."""
    steps = -(-examples * optim.num_epochs // optim.batch_size)
    policy = reference.copy()
    arguments = _arguments(policy, optim, run, batch=optim.batch_size, steps=steps)
    trainer = make(policy, {**arguments, "train_sampling_strategy": "sequential"})
    cut = policy.model.config.get_text_config().vocab_size
    trainer.train_dataset = trainer.train_dataset.map(
        lambda row: {name: without_cut(ids, cut) for name, ids in row.items() if name.endswith("_ids")}
    )
    return _train(trainer, policy, reference, optim, run, steps, lambda step: {"tokens": tokens * step / steps})


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
        eos = policy.tokenizer.eos_token_id
        counted["sampled"] += sum(map(len, completion_ids))
        counted["prompts"] += sum(len(policy.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in text)
        return list(map(float, score(text, [policy.decode([i for i in ids if i != eos]) for ids in completion_ids])))

    needed = config.num_steps * config.samples_per_step // config.num_generations
    epochs = range(-(-needed // len(data.prompts)))
    order = [i for epoch in epochs for i in epoch_order(len(data.prompts), run.seed, epoch)][:needed]
    rows = [{"prompt": _words(data.prompts[i].ids), "text": data.prompts[i].text} for i in order]
    steps = config.num_steps * config.epochs_per_step
    arguments = _arguments(policy, config.optim, run, batch=config.samples_per_step, steps=steps)
    folder = run.directory / "trl-reference"  # where TRL reads the reference from
    try:
        reference.save(folder)
        policy.model.config._name_or_path = str(folder)
        settings = getattr(trl, f"{kind}Config")(
            **arguments, beta=config.beta, num_generations=config.num_generations, num_iterations=config.epochs_per_step,
            steps_per_generation=arguments["gradient_accumulation_steps"], max_completion_length=data.max_new_tokens,
            shuffle_dataset=False,
        )  # fmt: skip
        trainer = getattr(trl, f"{kind}Trainer")(
            policy.model, reward, args=settings, train_dataset=_dataset(rows), processing_class=id_tokenizer(policy),
            optimizers=_optimizers(policy, config.optim, torch.optim.Adam),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def tokens(_: int) -> dict[str, float]:
        seen = counted["sampled"] + counted["prompts"]
        scored = counted["sampled"] * (2 if config.beta else 1)  # by the reward, and by the reference
        return {"tokens": seen * config.epochs_per_step, "tokens_sampled": counted["sampled"], "tokens_scored": scored}

    return _train(trainer, policy, reference, config.optim, run, steps, tokens)


def _train(
    trainer: Any,
    policy: Any,
    reference: Any,
    optim: OptimConfig,
    run: Run,
    steps: int,
    tokens: Callable[[int], dict[str, float]],
) -> Any:
    """Run a trainer with our log, snapshots and progress bar; the trained weights come back in a plain policy."""
    from transformers import PrinterCallback, TrainerCallback

    to_keep = set(snapshot_steps(steps, optim.num_snapshots))

    class Follow(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(1)
            if state.global_step in to_keep:
                run.snapshot(policy, state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            named = {RENAMED.get(name, name): float(v) for name, v in (logs or {}).items() if isinstance(v, (int, float))}
            if "train_runtime" not in named:  # the last row, of the whole run
                if not torch.isfinite(torch.tensor(named.get("loss", 0.0))):
                    raise NonFiniteLoss(f"step {state.global_step}: loss {named['loss']}; lower the learning rate ({optim.lr})")
                kept = {name: v for name, v in named.items() if name and v == v}
                run.log(state.global_step, kept | tokens(state.global_step))

    trainer.args._n_gpu = min(1, trainer.args._n_gpu)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Follow())
    with run.progress(steps, "step") as bar:
        trainer.train()
    trained = reference.copy()
    trained.model.load_state_dict(policy.model.state_dict())
    counts = tokens(steps)
    trained.tokens_trained = int(counts["tokens"])
    for name in ("tokens_sampled", "tokens_scored"):
        setattr(trained, name, int(counts.get(name, 0)))
    shutil.rmtree(run.directory / "trl", ignore_errors=True)
    return trained
