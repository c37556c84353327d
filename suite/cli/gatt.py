"""Does your model keep an instruction over a dialogue, and does Ghost Attention help? From dialogues to a page, one command.

Joins an instruction that a program can check to what users say, samples answers turn by turn, fine-tunes the model by Ghost
Attention (sec. 3.3 of Touvron et al. 2023) and, as a control, on answers that were sampled with the instruction in the first
turn only; then counts at which turn of test dialogues each policy, and the model as it is, still keeps the instruction.
Everything is cached and resumable. docs/ghost_attention.md says more.

Examples:
  suite gatt dialogues.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct
  suite gatt Anthropic/hh-rlhf --instructions mine.jsonl --model my_model --dialogues 400 --lora-rank 16
  suite gatt invented --turns 2 --dialogues 8 --test-dialogues 3 --seeds 1 --max-new-tokens 12     to see that it runs
  suite gatt dialogues.jsonl --model my_model --dry-run
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from suite.analysis.consistency import dialogue_lines, gather_consistency
from suite.analysis.records import write_text
from suite.cli.options import RESULTS, MachineOptions, Unnamed, file_name, made_here, parse_seeds
from suite.cli.ranges import Count, CountOrNone, File, Name, Rank, Rate, Temperature, whole
from suite.common.errors import UserError
from suite.common.files import check_writable
from suite.common.machine import bfloat16_is_native, quiet_libraries, usable_device
from suite.data.instructions import read_instructions
from suite.engine.making import closure
from suite.engine.store import reading
from suite.engine.sweep import print_plan, run_all
from suite.report.consistency import write_consistency
from suite.report.page import bullets, code, page, plain
from suite.study.ghost_attention import GhostAttention, GhostAttentionPlan, plan_ghost_attention
from suite.study.profiles import EMBEDDED
from suite.training.settings import OptimConfig

MICRO_BATCH = 1
"""Dialogues in one forward pass of training, where nothing is said: they are long."""


@dataclass(frozen=True, kw_only=True)
class GattOptions(MachineOptions):
    """Options of the experiment on Ghost Attention."""

    source: Annotated[Name, tyro.conf.Positional, tyro.conf.arg(metavar="DIALOGUES")]
    """Dialogues, of which what the user says is used: JSONL, CSV or parquet file, folder, or Hub name; rows with messages, a
    prompt, or Human: … Assistant: … as text."""
    instructions: File | None = None
    """JSONL file of instructions, a row each: {"instruction": "…", "check": "capitals"}, or "contains" or "at_most_words" with
    a "value". Default: twelve of this package."""
    model: Name = EMBEDDED
    """Who answers and is fine-tuned: folder or Hub name. Default: the embedded model of film reviews, which keeps nothing."""
    dialogues: Count = 100
    """To train on, at most."""
    test_dialogues: Annotated[int, whole(2)] = 48
    """To measure on, at most."""
    turns: Count = 4
    """User turns of a dialogue: shorter ones are joined, longer ones cut."""
    max_prompt_tokens: Count | None = None
    """Dialogues with a longer prompt are left out and counted. Default: 640, or what the model's context has room for."""
    max_new_tokens: Count = 64
    """Longest answer; one that it cuts has not kept a limit of words."""
    temperature: Temperature = 1.0
    """Of all answers; 0 is greedy."""
    seeds: str = "1,2,3"
    """Comma-separated; each samples, trains and is measured on its own. Fewer than three give no verdict."""
    epochs: Count = 3
    """Passes over the training dialogues."""
    batch_size: Count = 8
    """Dialogues in one step of training."""
    lr: Rate = 2e-5
    """Learning rate of both fine-tunings."""
    lora_rank: Rank = 0
    """Train adapters of this rank; 0: all weights."""
    attention_dialogues: CountOrNone = 16
    """Test dialogues of which it is measured how much attention falls on the instruction."""
    write_dialogues: File | None = None
    """Also write the synthetic dialogues, with their texts, as JSONL into this file: maybe not yours to publish."""

    def settings(self) -> GhostAttention:
        """The study. Raises UserError for a bad file of instructions, seeds that are none, or a device that is not there."""
        device = usable_device(self.device)
        native = "bfloat16" if bfloat16_is_native(device) else "float32"
        precision: Any = native if self.precision == "auto" else self.precision
        optim = OptimConfig(
            lr=self.lr, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size or MICRO_BATCH,
            num_epochs=self.epochs, warmup_steps=10, warmup_share=0.1, num_snapshots=1, precision=precision,
        )  # fmt: skip
        names = ("dialogues", "test_dialogues", "turns", "max_prompt_tokens", "max_new_tokens", "temperature", "lora_rank")
        return GhostAttention(
            model=self.model, source=self.source, instructions=read_instructions(self.instructions), optim=optim,
            seeds=tuple(parse_seeds(self.seeds)), attention_dialogues=self.attention_dialogues, sampler_dtype=precision,
            sampler=self.sampler, device=device, **{name: getattr(self, name) for name in names},
        )  # fmt: skip


def gatt(options: Unnamed[GattOptions]) -> int:
    """Plan, run, write; the exit code."""
    quiet_libraries()
    plan = plan_ghost_attention(options.settings())
    means = options.means(plan.settings.device)
    print_plan(options.runs, plan.targets, means, whole=options.dry_run or options.verbose)
    if options.dry_run:
        return 0
    names = (Path(options.source).name.partition(".")[0], Path(options.model).name)
    out = options.out or RESULTS / "_".join(["ghost_attention", *map(file_name, names)])
    for folder in (options.runs, out, *([options.write_dialogues.parent] if options.write_dialogues else [])):
        check_writable(folder)
    if run_all(options.runs, plan.targets, means):
        raise UserError("some runs failed, which are named above with their error.log; nothing can be compared without them")
    with reading(options.runs, closure(plan.targets)):
        if options.write_dialogues:
            lines = [json.dumps(line, ensure_ascii=False) for line in dialogue_lines(plan, options.runs)]
            write_text(options.write_dialogues, "".join(f"{line}\n" for line in lines))
            print(f"{len(lines):,} dialogues written to {options.write_dialogues}")
        words = write_consistency(gather_consistency(plan, options.runs), out)
    text = page("Ghost Attention", [("", made_here(f"device {plan.settings.device}")), ("", settings_words(plan)), ("", words)])
    write_text(out / "summary.md", text)
    print(f"\n{text}\nWritten to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return 0


def settings_words(plan: GhostAttentionPlan) -> str:
    """Model, data, training and instructions of a study."""
    settings, optim = plan.settings, plan.settings.optim
    weights = f"adapters of rank {settings.lora_rank}" if settings.lora_rank else "all weights"
    kinds = [instruction.check for instruction in settings.instructions]
    return bullets([
        f"model {code(Path(settings.model).name)}, dialogues {code(Path(settings.source).name)}",
        f"{len(kinds)} instructions: " + ", ".join(f"{kinds.count(kind)} {plain(kind)}" for kind in dict.fromkeys(kinds)),
        f"answers of at most {settings.max_new_tokens} tokens at temperature {settings.temperature:g}",
        f"{weights}, {optim.num_epochs} epochs, batches of {optim.batch_size}, learning rate {optim.lr:g}, {optim.precision}",
    ])  # fmt: skip
