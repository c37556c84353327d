"""Speed of our training loops and sampler beside their peers: in turn, in one process, on one model, in one arithmetic.

Peers: TRL's DPOTrainer (log-probs of the reference computed before the clock starts, the same batch size) and RewardTrainer,
and `generate` of transformers. Ours and the peer's alternate, so that a machine whose speed drifts changes both; what carries
over to another machine is the ratio, of which the median and the range over rounds are given, by wall time and by CPU seconds.
PPO is beside TRL's in ppo_beside_trl.py, since that TRL needs an environment of its own.

examples:
  python experiments/benchmarks/throughput.py
  python experiments/benchmarks/throughput.py --threads 1 --rounds 5
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from baselines.trl_adapter import import_trl
from suite.analysis.records import write_text
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import Count, Folder
from suite.common.machine import available_cores, quiet_libraries
from suite.data.preference_data import PreferencePair
from suite.engine.store import RunSpec, open_run
from suite.interfaces import TrainingData
from suite.methods.dpo import DPO, DPOConfig
from suite.policies.causal_lm import CausalLMPolicy
from suite.report.page import page, table
from suite.rewards.reward_model import RewardModel
from suite.study.profiles import ASSETS
from suite.study.study import Precision
from suite.tasks.imdb_sentiment import prompts_from_model
from suite.training.loop import fit
from suite.training.reward_modeling import pair_losses
from suite.training.settings import OptimConfig

MODEL, NEW_TOKENS, PER_PROMPT = ASSETS / "imdb-gpt2", 32, 4
GFLOP_PER_TOKEN = 2 * 3.15e6 / 1e9, 2 * 2.10e6 / 1e9
"""Of the embedded model, forward: its blocks, for every token; its output layer, for every token that is predicted."""


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    prompts: Count = 64
    """Prompts with four completions each, all pairs of them; with two completions, four times as many."""
    batch_size: Count = 64
    """Pairs per step."""
    rounds: Count = 3
    """How often everything is measured."""
    precision: Precision = "float32"
    """Arithmetic of training, ours and TRL's."""
    threads: Count = field(default_factory=available_cores)
    out: Folder = RESULTS / "benchmarks"
    """Folder for throughput.md and, with one thread, throughput_1_thread.md."""


class Took(NamedTuple):
    """Seconds of something that was done."""

    wall: float
    cpu: float


class Contest(NamedTuple):
    """Ours and a peer's, which do the same amount of work."""

    what: str
    unit: str
    amount: float
    ours: Callable[[], Took]
    peer: str
    theirs: Callable[[], Took]
    gflop: float  # that ours has to do


def main(args: Arguments) -> int:
    torch.set_num_threads(args.threads)
    quiet_libraries()
    disable_progress_bars()
    contests, rows = contests_of(args), []
    for contest in contests:
        rounds = [(contest.ours(), contest.theirs()) for _ in range(args.rounds)]
        ours, theirs = min(took.wall for took, _ in rounds), min(took.wall for _, took in rounds)
        rows.append(
            {"what": contest.what, "unit": contest.unit, "ours": f"{contest.amount / ours:.1f}", "peer": contest.peer,
             "peer's": f"{contest.amount / theirs:.1f}", "ratio, wall": ratio(rounds, 0), "ratio, CPU": ratio(rounds, 1),
             "ours, GFLOP/s": f"{contest.gflop / ours:.0f}"}
        )  # fmt: skip
        print(rows[-1], flush=True)
    gemm = matrix_product()
    notes = (
        f"The best round's rates; ratios are medians of {args.rounds} rounds with their range. A product of two float32 "
        f"matrices of 1024 × 1024 does {gemm:.0f} GFLOP/s here; GFLOP of ours are those of its matrix products without "
        "attention, three times as many with gradient, completions that stand in several pairs once."
    )
    machine = made_here(f"{args.threads} threads", args.precision, f"torch {torch.__version__}", f"{NEW_TOKENS} new tokens")
    text = page("Throughput", [("", machine), ("", table(rows)), ("", notes)])
    write_text(args.out / ("throughput.md" if args.threads > 1 else "throughput_1_thread.md"), text)
    print(text)
    return 0


def contests_of(args: Arguments) -> list[Contest]:
    """What is measured."""
    policy = CausalLMPolicy.load(MODEL)
    prompts = prompts_from_model(policy, "train", 4 * args.prompts, seed=0)
    many, single = all_pairs(policy, prompts[: args.prompts], PER_PROMPT), all_pairs(policy, prompts, 2)
    drawn = partial(policy.sample, prompts, num_samples=4, max_new_tokens=NEW_TOKENS, seed=0)
    rows = [c for some in drawn() for c in some]
    tokens, trunk, head = sum(len(c.ids) for c in rows), *GFLOP_PER_TOKEN
    optim = OptimConfig(batch_size=args.batch_size, num_snapshots=1, precision=args.precision)
    found = [
        Contest("sampling, float32", "tokens/s", tokens, partial(timed, drawn), "generate", partial(generate, policy, prompts),
                trunk * sum(c.length for c in rows) + head * tokens)
    ]  # fmt: skip
    for name, pairs in ((f"{PER_PROMPT} completions a prompt", many), ("one pair a prompt", single)):
        seen = {(c.prompt.ids, c.ids): c for p in pairs for c in p.completions}.values()
        of_trunk, of_head = (3 * trunk * sum(c.length for c in seen), 3 * head * sum(len(c.ids) for c in seen))
        dpo, reward = partial(train_dpo, policy, pairs, optim), partial(train_reward_model, policy, pairs, optim)
        trl_dpo, trl_reward = (partial(train_peer, kind, pairs, args) for kind in ("DPO", "Reward"))
        found.append(Contest(f"DPO, {name}", "pairs/s", len(pairs), dpo, "DPOTrainer", trl_dpo, of_trunk + of_head))
        found.append(Contest(f"reward model, {name}", "pairs/s", len(pairs), reward, "RewardTrainer", trl_reward, of_trunk))
    return found


def ratio(rounds: list[tuple[Took, Took]], which: int) -> str:
    """Theirs over ours: median, and range over rounds."""
    found = [theirs[which] / ours[which] for ours, theirs in rounds]
    return f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f})"


def timed(do: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def matrix_product() -> float:
    """GFLOP/s of a large matrix product."""
    a, b = torch.randn(2, 1024, 1024)
    return 2 * 1.024**3 * 20 / min(timed(lambda: [a @ b for _ in range(20)]).wall for _ in range(3))


def all_pairs(policy: CausalLMPolicy, prompts, count: int) -> list[PreferencePair]:
    """All pairs of so many completions of each prompt; which side is chosen does not matter for speed."""
    drawn = policy.sample(prompts, num_samples=count, max_new_tokens=NEW_TOKENS, seed=1)
    logps = iter(policy.log_prob([c for some in drawn for c in some]).tolist())
    known = [[(c, next(logps)) for c in some] for some in drawn]
    return [
        PreferencePair(a, b, 1.0, 0.0, of_a, of_b) for some in known for (a, of_a), (b, of_b) in itertools.combinations(some, 2)
    ]


def train_dpo(policy: CausalLMPolicy, pairs: list[PreferencePair], optim: OptimConfig) -> Took:
    """A whole run, copy and snapshot included."""
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder), RunSpec("train", {"seed": 0})) as run:
        return timed(lambda: DPO().train(TrainingData(pairs=pairs), policy, DPOConfig(optim=optim), run))


def train_reward_model(policy: CausalLMPolicy, pairs: list[PreferencePair], optim: OptimConfig) -> Took:
    """The loop, copy and snapshot included."""
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder), RunSpec("train", {"seed": 0})) as run:
        model = RewardModel.from_policy(policy)
        return timed(lambda: fit(model, pairs, partial(pair_losses, margin=0.0), optim, run))


class Clock(TrainerCallback):
    """When the first step began and the last one ended."""

    began: Took | None = None
    ended = Took(0.0, 0.0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = self.began or Took(time.perf_counter(), time.process_time())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = Took(time.perf_counter(), time.process_time())


def train_peer(kind: str, pairs: list[PreferencePair], args: Arguments) -> Took:
    """TRL's optimizer steps alone."""
    trl, clock = import_trl(), Clock()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"prompt": p.prompt.text, "chosen": p.chosen.text, "rejected": p.rejected.text} for p in pairs]
    more = {"precompute_ref_log_probs": True} if kind == "DPO" else {}
    loader: Any = AutoModelForCausalLM if kind == "DPO" else AutoModelForSequenceClassification
    model = loader.from_pretrained(MODEL, dtype=torch.float32, **({} if kind == "DPO" else {"num_labels": 1}))
    model.config.pad_token_id = tokenizer.pad_token_id
    with tempfile.TemporaryDirectory() as folder:
        config = getattr(trl, f"{kind}Config")(
            output_dir=folder, per_device_train_batch_size=args.batch_size, num_train_epochs=1, use_cpu=True,
            report_to="none", save_strategy="no", logging_steps=10**6, disable_tqdm=True, max_length=64,
            gradient_checkpointing=False, bf16=args.precision == "bfloat16", **more,
        )  # fmt: skip
        getattr(trl, f"{kind}Trainer")(
            model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list(rows), callbacks=[clock]
        ).train()
    assert clock.began is not None
    return Took(clock.ended.wall - clock.began.wall, clock.ended.cpu - clock.began.cpu)


def generate(policy: CausalLMPolicy, prompts) -> Took:
    """Plain sampling by transformers in batches of 256 rows, padded on the left, in float32; 4 completions a prompt."""
    rows = [p.ids for p in prompts for _ in range(4)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])

    def draw() -> None:
        for some, real in zip(ids.split(256), mask.split(256), strict=True):
            policy.model.generate(
                input_ids=some, attention_mask=real, do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS, pad_token_id=0
            )

    return timed(draw)


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
