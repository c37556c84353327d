"""Speed of the training loop and of the sampler beside their peers, in the same process on the same model.

Peers: TRL's DPOTrainer (precomputed reference log-probs, the same batch size and arithmetic) and Hugging Face's `generate`.
Numbers are of one machine; the ratio is what carries over.

examples:
  python experiments/benchmarks/throughput.py
  python experiments/benchmarks/throughput.py --threads 1 --pairs 512
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from baselines.trl_methods import TRLDPO, TRLDPOConfig
from suite.analysis.records import write_text
from suite.cli.options import RESULTS, made_here, run_script
from suite.common.machine import available_cores, bfloat16_is_native, quiet_libraries
from suite.data.preference_data import PreferencePair
from suite.engine.store import RunSpec, open_run
from suite.interfaces import TrainingData
from suite.methods.dpo import DPO, DPOConfig
from suite.policies.causal_lm import CausalLMPolicy
from suite.report.page import page, table
from suite.study.profiles import ASSETS
from suite.study.study import Precision
from suite.tasks.imdb_sentiment import prompts_from_model
from suite.training.settings import OptimConfig

MODEL, NEW_TOKENS = ASSETS / "imdb-gpt2", 32


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
    out: Path = RESULTS / "benchmarks"
    """Folder for `throughput.md`."""


def main(args: Arguments) -> int:
    torch.set_num_threads(args.threads)
    quiet_libraries()
    fast = bfloat16_is_native() if args.precision == "auto" else args.precision == "bfloat16"
    precision: Precision = "bfloat16" if fast else "float32"
    policy = CausalLMPolicy.load(MODEL)
    prompts = prompts_from_model(policy, "train", 64, seed=0)
    samples = args.completions // len(prompts)
    rows: list[tuple[str, str, float, str, float]] = []
    generate = time_generate(policy, prompts, samples)
    for dtype in (torch.float32, torch.bfloat16) if fast else (torch.float32,):
        policy.sampler_dtype = dtype
        rows.append((f"sampling, {dtype}", "tokens/s", time_sampler(policy, prompts, samples), "generate, float32", generate))
    pairs = make_pairs(policy, prompts, args.pairs)
    peer = time_trl(pairs, args.batch_size, precision)
    optim = OptimConfig(batch_size=args.batch_size, micro_batch_size=args.batch_size, num_snapshots=1, precision=precision)
    ours = time_method(DPO(), DPOConfig(optim=optim), policy, pairs)
    adapted = time_method(TRLDPO(), TRLDPOConfig(optim=optim), policy, pairs)
    peers = {"TRL DPOTrainer alone": peer, "trl_dpo, with its reference": adapted}
    rows += [(f"DPO, {precision}", "pairs/s", ours, name, rate) for name, rate in peers.items()]
    found = pd.DataFrame(rows, columns=["what", "unit", "ours", "peer", "peer's"])
    shown = table(found.assign(ratio=found["ours"] / found["peer's"]), disable_numparse=False, floatfmt=".1f")
    machine = made_here(f"{args.threads} threads", f"torch {torch.__version__}", f"{NEW_TOKENS} new tokens")
    text = page("Throughput", [("", machine), ("", shown)])
    write_text(args.out / "throughput.md", text)
    print(text)
    return 0


def time_sampler(policy: CausalLMPolicy, prompts, samples: int) -> float:
    policy.sample(prompts, num_samples=1, max_new_tokens=4, seed=0)
    began = time.perf_counter()
    drawn = policy.sample(prompts, num_samples=samples, max_new_tokens=NEW_TOKENS, seed=0)
    return sum(len(c.ids) for some in drawn for c in some) / (time.perf_counter() - began)


def time_generate(policy: CausalLMPolicy, prompts, samples: int) -> float:
    """Batches of 256 as ours, left-padded, fp32, plain sampling."""
    rows = [p.ids for p in prompts for _ in range(samples)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    tokens, began = 0, time.perf_counter()
    for some, real in zip(ids.split(256), mask.split(256), strict=True):
        out = policy.model.generate(
            input_ids=some, attention_mask=real, do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS, pad_token_id=0
        )
        completions = out[:, width:]
        tokens += int((completions != 0).sum()) + int((completions == 0).any(dim=1).sum())
    return tokens / (time.perf_counter() - began)


def make_pairs(policy: CausalLMPolicy, prompts, count: int) -> list[PreferencePair]:
    """Which side is chosen does not matter for speed."""
    drawn = policy.sample(prompts, num_samples=2 * -(-count // len(prompts)), max_new_tokens=NEW_TOKENS, seed=1)
    sides = [c for some in drawn for c in some]
    logps = policy.log_prob(sides).tolist()
    return [PreferencePair(sides[i], sides[i + 1], 1.0, 0.0, logps[i], logps[i + 1]) for i in range(0, 2 * count, 2)]


def time_method(method: Any, config: Any, policy: CausalLMPolicy, pairs: list[PreferencePair]) -> float:
    """A whole run; `trl_dpo`, the same trainer as a method here, also runs the reference."""
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder), RunSpec("train", {"seed": 0})) as run:
        began = time.perf_counter()
        method.train(TrainingData(pairs=pairs), policy, config, run)
        return len(pairs) / (time.perf_counter() - began)


class Clock(TrainerCallback):
    """When the first step began and the last one ended."""

    first = last = 0.0

    def on_step_begin(self, *_, **__):
        self.first = self.first or time.perf_counter()

    def on_step_end(self, *_, **__):
        self.last = time.perf_counter()


def time_trl(pairs: list[PreferencePair], batch_size: int, precision: str) -> float:
    """Optimizer steps only: reference log-probs are computed before the clock starts."""
    from datasets import Dataset
    from trl import DPOConfig as PeerConfig
    from trl import DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"prompt": p.chosen.prompt.text, "chosen": p.chosen.text, "rejected": p.rejected.text} for p in pairs]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = PeerConfig(
            output_dir=folder, per_device_train_batch_size=batch_size, num_train_epochs=1, use_cpu=True,
            precompute_ref_log_probs=True, report_to="none", save_strategy="no", logging_steps=10**6, disable_tqdm=True,
            max_length=64, gradient_checkpointing=False, bf16=precision == "bfloat16",
        )  # fmt: skip
        DPOTrainer(
            AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32), args=config, processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows), callbacks=[clock],
        ).train()  # fmt: skip
    return len(pairs) / (clock.last - clock.first)


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
