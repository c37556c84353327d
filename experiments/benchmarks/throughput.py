"""Speed of the training loop and of the sampler beside their peers, in the same process on the same model.

Peers: TRL's DPOTrainer (precomputed reference log-probs, the same batch size and arithmetic) and Hugging Face's `generate`.
Numbers are of one machine; the ratio is what carries over.

examples:
  python experiments/benchmarks/throughput.py
  python experiments/benchmarks/throughput.py --threads 1 --pairs 512
"""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tabulate import tabulate

from baselines.trl_methods import TRLDPO, TRLDPOConfig
from suite.data.preference_data import PreferencePair
from suite.data.tasks.imdb_sentiment import prompts_from_model
from suite.errors import one_line_errors
from suite.files import write_atomically
from suite.interfaces import TrainingData
from suite.policies.causal_lm import CausalLMPolicy, bfloat16_is_native
from suite.runs.run_store import RunSpec, open_run
from suite.runs.study import ASSETS
from suite.runs.sweep import available_cores, quiet_libraries
from suite.training.dpo import DPO, DPOConfig
from suite.training.loop import OptimConfig

NEW_TOKENS = 32


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    pairs: int = 640
    """Pairs to train on."""
    completions: int = 512
    """Completions to draw."""
    batch_size: int = 32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the training passes, ours and TRL's; auto: bf16 where the hardware has it."""
    threads: int = available_cores()
    out: Path = Path(__file__).parents[2] / "results" / "benchmarks"
    """Folder for `throughput.md`."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(arguments.threads)
    quiet_libraries()
    fast = bfloat16_is_native() if arguments.precision == "auto" else arguments.precision == "bfloat16"
    precision = "bfloat16" if fast else "float32"
    policy = CausalLMPolicy.load(ASSETS / "imdb-gpt2")
    prompts = prompts_from_model(policy, "train", 64, seed=0)
    rows = []
    generate = time_generate(policy, prompts, arguments)
    for dtype in (torch.float32, torch.bfloat16) if fast else (torch.float32,):
        policy.sampler_dtype = dtype
        ours = time_sampler(policy, prompts, arguments)
        rows.append((f"sampling, {dtype}", "tokens/s", ours, "generate, float32", generate, ours / generate))
    pairs = make_pairs(policy, prompts, arguments.pairs)
    peer = time_trl(pairs, arguments, precision)
    ours = time_loop(policy, pairs, arguments, precision)
    rows.append((f"DPO, {precision}", "pairs/s", ours, "TRL DPOTrainer alone", peer, ours / peer))
    adapted = time_loop(policy, pairs, arguments, precision, TRLDPO(), TRLDPOConfig)
    rows.append((f"DPO, {precision}", "pairs/s", ours, "trl_dpo, with its reference", adapted, ours / adapted))
    machine = f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    table = tabulate(rows, headers=["what", "unit", "ours", "peer", "peer's", "ratio"], tablefmt="github", floatfmt=".1f")
    command = shlex.join(["python", "experiments/benchmarks/throughput.py", *sys.argv[1:]])
    page = f"# Throughput\n\n`{command}`  \n{date.today()}, {machine}, {NEW_TOKENS} new tokens\n\n{table}\n"
    write_atomically(arguments.out / "throughput.md", lambda path: path.write_text(page))
    print(page)
    return 0


def time_sampler(policy: CausalLMPolicy, prompts, arguments: Arguments) -> float:
    samples = arguments.completions // len(prompts)
    policy.sample(prompts, num_samples=1, max_new_tokens=4, seed=0)
    began = time.perf_counter()
    drawn = policy.sample(prompts, num_samples=samples, max_new_tokens=NEW_TOKENS, seed=0)
    return sum(len(c.ids) for some in drawn for c in some) / (time.perf_counter() - began)


def time_generate(policy: CausalLMPolicy, prompts, arguments: Arguments) -> float:
    """Batches of 256 as ours, left-padded, fp32, plain sampling."""
    rows = [p.ids for p in prompts for _ in range(arguments.completions // len(prompts))]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    tokens, began = 0, time.perf_counter()
    for at in range(0, len(rows), 256):
        out = policy.model.generate(
            input_ids=ids[at : at + 256], attention_mask=mask[at : at + 256], do_sample=True, top_k=0,
            max_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        completions = out[:, width:]
        tokens += int((completions != 0).sum()) + int((completions == 0).any(dim=1).sum())
    return tokens / (time.perf_counter() - began)


def make_pairs(policy: CausalLMPolicy, prompts, count: int) -> list[PreferencePair]:
    """Which side is chosen does not matter for speed."""
    drawn = policy.sample(prompts, num_samples=2 * -(-count // len(prompts)), max_new_tokens=NEW_TOKENS, seed=1)
    sides = [c for some in drawn for c in some]
    logps = policy.log_prob(sides).tolist()
    pairs = [PreferencePair(sides[i], sides[i + 1], 1.0, 0.0, logps[i], logps[i + 1]) for i in range(0, len(sides), 2)]
    return pairs[:count]


def time_loop(
    policy: CausalLMPolicy, pairs: list[PreferencePair], arguments: Arguments, precision: Any, method: Any = None,
    config: Any = DPOConfig,
) -> float:  # fmt: skip
    """A whole run of `method` (default: our DPO); `trl_dpo`, the same trainer as a method here, also runs the reference."""
    optim = OptimConfig(
        batch_size=arguments.batch_size, micro_batch_size=arguments.batch_size, num_snapshots=1, precision=precision
    )
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder), RunSpec("train", {"seed": 0})) as run:
        began = time.perf_counter()
        (method or DPO()).train(TrainingData(pairs=pairs), policy, config(optim=optim), run)
        return len(pairs) / (time.perf_counter() - began)


def time_trl(pairs: list[PreferencePair], arguments: Arguments, precision: str) -> float:
    """Optimizer steps only: reference log-probs are computed before the clock starts."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.first = getattr(self, "first", time.perf_counter())

        def on_step_end(self, *_, **__):
            self.last = time.perf_counter()

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "imdb-gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"prompt": p.chosen.prompt.text, "chosen": p.chosen.text, "rejected": p.rejected.text} for p in pairs]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = TrlConfig(
            output_dir=folder, per_device_train_batch_size=arguments.batch_size, num_train_epochs=1, use_cpu=True,
            precompute_ref_log_probs=True, report_to="none", save_strategy="no", logging_steps=10**6, disable_tqdm=True,
            max_length=64, gradient_checkpointing=False, bf16=precision == "bfloat16",
        )  # fmt: skip
        trainer = DPOTrainer(
            AutoModelForCausalLM.from_pretrained(ASSETS / "imdb-gpt2", dtype=torch.float32), args=config,
            train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return len(pairs) / (clock.last - clock.first)


if __name__ == "__main__":
    sys.exit(main())
