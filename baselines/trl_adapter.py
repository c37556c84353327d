"""One adapter for all of TRL's trainers: our tokens and batches in, our log, snapshots and policy out.

TRL reads text and tokenises it again, which would move the boundary between prompt and completion and add EOS to completions
that the length limit cut. So it is given texts whose words are the token ids, and a tokenizer that reads them.
"""

import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch

from suite.common.errors import UserError
from suite.data.batching import by_prompt
from suite.data.preference_data import Completion, PreferencePair
from suite.interfaces import Run, TrainablePolicy
from suite.training.loop import NonFiniteLoss, epoch_order
from suite.training.settings import OptimConfig, rate_share, snapshot_steps

END, CUT, UNKNOWN = "<eos>", "<cut>", "<unknown>"
"""Words for EOS and for "the length limit ended this": the latter is taken out again with the EOS that TRL puts behind it."""
RENAMED = {"learning_rate": "lr", "epoch": "", "step_time": "", "num_tokens": ""}
"""TRL's name of a metric → ours; those without one are left out: we count tokens ourselves."""


def import_trl() -> Any:
    """The installed TRL. Raises UserError if there is none."""
    try:
        import trl
    except ImportError as error:
        raise UserError('TRL is not installed; pip install "trl>=1,<2"') from error
    warnings.filterwarnings("ignore", "`.*gradient_checkpointing` is deprecated", FutureWarning)  # said by every trainer
    return trl


def in_our_order(pairs: Sequence[PreferencePair], optim: OptimConfig, seed: int) -> list[PreferencePair]:
    """All epochs one after the other, each in the order in which our own loop visits it: by prompts. TRL cuts batches of equal
    size from it, ours are of whole prompts.
    """
    groups = by_prompt(pairs)
    order = [i for epoch in range(optim.num_epochs) for i in epoch_order(len(groups), seed, epoch)]
    return [pair for i in order for pair in groups[i].examples]


def in_turns(pairs: Sequence[PreferencePair], optim: OptimConfig, seed: int) -> list[PreferencePair]:
    """As `in_our_order`, but prompts take turns, each with its first pair, then each with its second: neighbours differ in
    their prompts, where there are several.
    """
    groups = by_prompt(pairs)
    visits = ([groups[i].examples for i in epoch_order(len(groups), seed, epoch)] for epoch in range(optim.num_epochs))
    return [pair for visit in visits for turn in zip_longest(*visit) for pair in turn if pair is not None]


def id_tokenizer(policy: TrainablePolicy) -> Any:
    """A tokenizer whose words are the decimal numbers of `policy`'s token ids: "17 4 <eos>" are the tokens 17, 4 and EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    size, eos = policy.model.config.get_text_config().vocab_size, policy.tokenizer.eos_token_id
    words = {END if i == eos else str(i): i for i in range(size)} | {CUT: size, UNKNOWN: size + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, additional_special_tokens=[CUT], padding_side="left"
    )


def words(ids: Sequence[int], eos: int) -> str:
    """Token ids as the text that `id_tokenizer` reads; chat prompts have EOS in the middle."""
    return " ".join(END if i == eos else str(i) for i in ids)


def answer(completion: Completion, eos: int) -> str:
    """What follows the prompt's words: it ends with EOS, or with a mark, so that TRL puts none of its own after it."""
    return f" {words(completion.ids, eos)}" + (f" {CUT}" if completion.ids[-1] != eos else "")


def new_trainer(
    kind: str, policy: TrainablePolicy, rows: list[dict[str, Any]], settings: dict[str, Any], ours: tuple[Any, Any], **more: Any
) -> Any:
    """TRL's trainer of a kind ("DPO") on `rows`, with TRL's settings and `ours`, optimizer and warm-up."""
    import datasets

    trl = import_trl()
    datasets.disable_progress_bars()
    return getattr(trl, f"{kind}Trainer")(
        policy.model, args=getattr(trl, f"{kind}Config")(**settings), train_dataset=datasets.Dataset.from_list(rows),
        processing_class=id_tokenizer(policy), optimizers=ours, **more,
    )  # fmt: skip


def without_cut(ids: Any, cut: int) -> Any:
    """Token ids without the mark of a cut completion and the EOS that TRL put behind it."""
    return ids[: ids.index(cut)] if isinstance(ids, list) and cut in ids else ids


def optimizers(policy: TrainablePolicy, optim: OptimConfig, steps: int, kind: Any = torch.optim.RMSprop) -> tuple[Any, Any]:
    """Our optimizer and schedule, which are not among TRL's settings."""
    optimizer = kind([p for p in policy.model.parameters() if p.requires_grad], lr=optim.lr)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps, optim))


def micro_batch(optim: OptimConfig, batch: int) -> int:
    """The largest micro-batch of at most `micro_batch_size` that divides the batch, as TRL needs it."""
    return next(size for size in range(min(optim.micro_batch_size, batch), 0, -1) if batch % size == 0)


def trainer_arguments(policy: TrainablePolicy, optim: OptimConfig, run: Run, *, batch: int, steps: int) -> dict[str, Any]:
    """What every TRL trainer is told: our batches, no files, no reports, no second GPU."""
    micro = micro_batch(optim, batch)
    return {
        "output_dir": str(run.directory / "trl"), "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro, "max_steps": steps, "learning_rate": optim.lr,
        "max_grad_norm": optim.max_grad_norm, "seed": run.seed, "bf16": optim.precision == "bfloat16",
        "use_cpu": policy.device.type == "cpu", "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "logging_nan_inf_filter": False, "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def positions_from_mask(model: Any) -> None:
    """Let `model` count positions from the first real token where prompts are padded on the left, as `generate` and our own
    code do: TRL's on-policy trainers name no positions, and models with learned ones would read others.
    """

    def add_positions(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        cached = kwargs.get("cache") or kwargs.get("past_key_values")
        if mask is not None and mask.dim() == 2 and kwargs.get("position_ids") is None and not cached:
            kwargs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp_min(0)
        return args, kwargs

    model.register_forward_pre_hook(add_positions, with_kwargs=True)


def train_and_follow(
    trainer: Any, policy: TrainablePolicy, reference: TrainablePolicy, optim: OptimConfig, run: Run, steps: int,
    tokens: Callable[[int], dict[str, float]],
) -> TrainablePolicy:  # fmt: skip
    """Run a trainer with our log, snapshots and progress bar; the trained weights come back in a plain policy."""
    from transformers import PrinterCallback, TrainerCallback

    run.load_checkpoint()  # there is none: rows that a killed run has logged are taken out
    to_keep = set(snapshot_steps(steps, optim.num_snapshots))

    class Follow(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(1)
            if state.global_step in to_keep:
                run.snapshot(policy, state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            named = {RENAMED.get(name, name): float(v) for name, v in (logs or {}).items() if isinstance(v, (int, float))}
            if "train_runtime" not in named:  # the last row, of the whole run
                loss, norm = named.get("loss", 0.0), named.get("grad_norm", 0.0)
                if not math.isfinite(loss + norm):
                    raise NonFiniteLoss(
                        f"step {state.global_step}: loss {loss}, gradient norm {norm}; lower the learning rate ({optim.lr})"
                    )
                kept = {name: v for name, v in named.items() if name and v == v}
                run.log(state.global_step, kept | tokens(state.global_step))

    trainer.args._n_gpu = min(1, trainer.args._n_gpu)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Follow())
    with run.progress(steps, "step") as bar:
        trainer.train()
    trained = reference.copy()
    trained.model.load_state_dict(policy.model.state_dict())
    counts = {name: int(count) for name, count in tokens(steps).items()}
    trained.tokens_trained = counts["tokens"]
    trained.tokens_sampled, trained.tokens_scored = counts.get("tokens_sampled", 0), counts.get("tokens_scored", 0)
    shutil.rmtree(run.directory / "trl", ignore_errors=True)
    return trained
