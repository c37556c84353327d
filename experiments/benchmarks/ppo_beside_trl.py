"""Our PPO beside the last one of TRL (0.11.4): reward at matched KL, completions per second, and where the time goes.

Same model, prompts, ground-truth reward, number of completions, batch sizes, passes and threads, one after the other on the
same machine, ours before and after TRL's since a machine's speed drifts; both policies are measured by our evaluation on the
same test prompts. TRL runs in an environment of its own (see trl_ppo.py): with our settings in fp32 and in bf16, and with its
defaults.

examples:
  python experiments/benchmarks/ppo_beside_trl.py --peer-python ENV/bin/python
  python experiments/benchmarks/ppo_beside_trl.py --peer-python ENV/bin/python --samples 512 --out /tmp/quick
"""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM

from baselines.ppo import PPOGT, PPOConfig
from baselines.ppo_rollout import prompts_of_step
from suite.analysis.records import write_table, write_text
from suite.cli.options import RESULTS, made_here, run_script
from suite.cli.ranges import Count, File, Folder, Rate
from suite.common.errors import UserError
from suite.common.machine import available_cores, quiet_libraries
from suite.data.preference_data import Prompt
from suite.engine.store import RunSpec, open_run
from suite.evaluation.reward_kl import evaluate_reward_kl
from suite.interfaces import RewardFunction, TrainingData
from suite.maths.statistics import mean_interval, paired_difference
from suite.policies.causal_lm import CausalLMPolicy
from suite.report.page import page, table
from suite.report.tables import with_interval
from suite.rewards.open_reward import open_reward
from suite.study.profiles import ASSETS
from suite.study.study import Precision
from suite.tasks.imdb_sentiment import prompts_from_model
from suite.training.settings import OptimConfig, snapshot_steps

MODEL, GOLD = ASSETS / "imdb-gpt2", ASSETS / "imdb-sentiment"
TARGET_KL, NEW_TOKENS = 6.0, 32
SNAPSHOTS, PEER_SNAPSHOTS = 8, 4
PARTS = ("sample", "reward", "score", "update")
Timed = tuple[dict[str, float], Path]
"""Seconds by part, in `all`, and the `completions`; and the folder of snapshots."""


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    peer_python: File = Path("ENV/bin/python")
    """Python of the environment that has TRL 0.11.4 (see trl_ppo.py)."""
    samples: Count = 4096
    """Completions per run."""
    lr: Rate = 1e-4
    """Learning rate of ours, and of TRL with our settings."""
    test_prompts: Count = 192
    precision: Precision = "float32"
    """Arithmetic of ours."""
    threads: Count = field(default_factory=available_cores)
    out: Folder = RESULTS / "benchmarks"
    """Where ppo_beside_trl.md and .csv go."""
    work: Folder = Path("/tmp/ppo_beside_trl")
    """Where policies are kept; must be empty or absent."""


def main(args: Arguments) -> int:
    if not args.peer_python.exists():
        raise UserError(f"--peer-python {args.peer_python}: does not exist; trl_ppo.py says how to make the environment")
    if args.work.exists() and any(args.work.iterdir()):
        raise UserError(f"--work {args.work}: is not empty; remove it or choose another")
    torch.set_num_threads(args.threads)
    quiet_libraries()
    precision = args.precision
    reference = CausalLMPolicy.load(MODEL, sampler_dtype=getattr(torch, precision))
    reward = open_reward(str(GOLD))
    train = prompts_from_model(reference, "train", 768, seed=0)
    test = prompts_from_model(reference, "test", args.test_prompts, seed=0)
    steps = max(1, args.samples // PPOConfig.samples_per_step)
    optim = OptimConfig(lr=args.lr, num_snapshots=min(SNAPSHOTS, steps), precision=precision)
    config = PPOConfig(target_kl=TARGET_KL, num_steps=steps, optim=optim)
    first, folder = time_ours(config, train, reference, reward, args.work / "ours")
    peers = time_peers(config, train, args)
    again, _ = time_ours(config, train, reference, reward, args.work / "ours-again")
    mean = {part: (seconds + again[part]) / 2 for part, seconds in first.items()}
    runs: dict[str, Timed] = {f"ours, {precision}": (mean, folder), **peers}

    def evaluate(policy: CausalLMPolicy) -> pd.DataFrame:
        """Reward and exact KL per test prompt, in float32."""
        policy.sampler_dtype = None
        frame = evaluate_reward_kl(policy, reference, reward, test, num_samples=1, max_new_tokens=NEW_TOKENS, seed=0)
        return frame.groupby("prompt_id")[["reward", "kl_exact"]].mean()

    start = evaluate(reference)
    points: dict[tuple[str, int], pd.DataFrame] = {}
    for name, (_, folder) in runs.items():
        for path in sorted(folder.glob("step-*")):  # both libraries write them with `save_pretrained`
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            points[name, int(path.name.removeprefix("step-"))] = evaluate(CausalLMPolicy(model, reference.tokenizer))
    found, matched = table_of(points), matched_rows(points, start, mine=f"ours, {precision}")
    write_table(args.out / "ppo_beside_trl.csv", found)
    text = page("Our PPO beside TRL 0.11.4", sections(runs, found, matched, config, args))
    write_text(args.out / "ppo_beside_trl.md", text)
    print(text)
    return 0


def time_ours(
    config: PPOConfig, train: list[Prompt], reference: CausalLMPolicy, reward: RewardFunction, work: Path
) -> Timed:  # fmt: skip
    """A run of PPO-GT, which logs what its parts take."""
    data = TrainingData(prompts=train, gold_reward=reward, max_new_tokens=NEW_TOKENS)
    with open_run(work, RunSpec("train", {"seed": 0})) as run:
        PPOGT().train(data, reference, config, run)
    logged = pd.read_json(run.directory / "metrics.jsonl", lines=True)
    seconds = {part: float(logged[f"seconds_{part}"].sum()) for part in PARTS}
    return {**seconds, "all": sum(seconds.values()), "completions": config.num_steps * config.samples_per_step}, (
        run.directory / "snapshots"
    )


def time_peers(config: PPOConfig, train: list[Prompt], args: Arguments) -> dict[str, Timed]:
    """As `time_ours`, in the peer's environment: TRL with our settings in both arithmetics, and with its defaults."""
    ours = {
        "learning_rate": config.optim.lr, "batch_size": config.samples_per_step, "mini_batch_size": config.minibatch_size,
        "ppo_epochs": config.epochs_per_step, "init_kl_coef": config.beta, "target": TARGET_KL,
        "horizon": config.horizon * args.samples, "max_grad_norm": config.optim.max_grad_norm,
    }  # fmt: skip
    bf16 = {"accelerator_kwargs": {"mixed_precision": "bf16", "cpu": True}}
    defaults = {"batch_size": 256, "mini_batch_size": 16, "ppo_epochs": 4, "target": TARGET_KL, "horizon": 0.4 * args.samples}
    settings: dict[str, dict[str, Any]] = {
        "TRL, our settings, float32": ours, "TRL, our settings, bfloat16": {**ours, **bf16},
        "TRL, its defaults, float32": defaults,
    }  # fmt: skip
    script, runs = Path(__file__).with_name("trl_ppo.py"), {}
    for name, of_run in settings.items():
        out, steps = args.work / name.replace(", ", "-").replace(" ", "-"), max(1, args.samples // of_run["batch_size"])
        chosen = [prompts_of_step(train, of_run["batch_size"], 0, step)[0] for step in range(steps)]
        job = {
            "model": str(MODEL), "gold_reward": str(GOLD), "logit_rewards": of_run is defaults,
            "normalise": of_run is not defaults, "seed": 0, "config": of_run,
            "prompts": [[list(prompt.ids) for prompt in some] for some in chosen], "max_new_tokens": NEW_TOKENS,
            "snapshots": snapshot_steps(steps, min(PEER_SNAPSHOTS, steps)), "threads": args.threads, "out": str(out),
        }  # fmt: skip
        write_text(out / "job.json", json.dumps(job))
        done = subprocess.run([args.peer_python, script, out / "job.json"], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise UserError(f"{script.name} failed ({done.returncode}): {last or 'killed'}")
        took = pd.read_json(out / "steps.json")[[*PARTS, "all"]].sum()
        runs[name] = {**took.to_dict(), "completions": sum(map(len, chosen))}, out
    return runs


def table_of(points: dict[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Every evaluated policy, with intervals over test prompts."""
    rows = []
    for (name, step), frame in points.items():
        row: dict[str, Any] = {"run": name, "step": step}
        for metric, column in (("reward", "reward"), ("kl", "kl_exact")):
            row[metric], row[f"{metric}_low"], row[f"{metric}_high"], n = mean_interval(frame[column])
        rows.append({**row, "n": n})
    return pd.DataFrame(rows)


def matched_rows(points: dict[tuple[str, int], pd.DataFrame], start: pd.DataFrame, *, mine: str) -> list[dict[str, str]]:
    """Each of TRL's policies beside ours at its KL, where we pass it."""
    path = [start, *(frame for (name, _), frame in points.items() if name == mine)]
    rows = []
    for (name, step), frame in points.items():
        kl = float(frame["kl_exact"].mean())
        ours = at_kl(path, kl)
        if name == mine or ours is None:
            continue
        mean, low, high, _ = paired_difference(ours, frame["reward"])
        open_ = ", no difference resolved" if low <= 0 <= high else ""
        rows.append(
            {"TRL's policy": f"{name}, step {step}", "KL, nats": f"{kl:.2f}", "its reward": f"{frame['reward'].mean():.3f}",
             "ours at this KL": f"{np.mean(ours):.3f}",
             "ours minus TRL, same prompts": f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]{open_}"}
        )  # fmt: skip
    return rows


def at_kl(points: list[pd.DataFrame], kl: float) -> pd.Series | None:
    """Reward per prompt at a mean KL, linear between the two snapshots on the way there that enclose it; None beyond them."""
    means = [float(point["kl_exact"].mean()) for point in points]
    for left, right, low, high in zip(points, points[1:], means, means[1:], strict=False):
        if min(low, high) <= kl <= max(low, high) and low != high:
            share = (kl - low) / (high - low)
            return (1 - share) * left["reward"] + share * right["reward"]
    return None


def sections(
    runs: dict[str, Timed], found: pd.DataFrame, matched: list[dict[str, str]], config: PPOConfig, args: Arguments
) -> list[tuple[str, str]]:
    """The page below its title."""
    rates = {name: seconds["completions"] / seconds["all"] for name, (seconds, _) in runs.items()}
    ours = next(iter(rates.values()))
    speed = [
        {"run": name, "completions/s": f"{rates[name]:.1f}", "seconds": f"{seconds['all']:.0f}",
         **{part: f"{seconds[part] / seconds['all']:.0%}" for part in PARTS}, "ours is faster by": f"{ours / rates[name]:.1f}×"}
        for name, (seconds, _) in runs.items()
    ]  # fmt: skip
    every = [
        {"run": row["run"], "step": row["step"], **{name: with_interval(row, name) for name in ("reward", "kl")}, "n": row["n"]}
        for _, row in found.iterrows()
    ]  # fmt: skip
    settings = (
        f"Embedded 5.3M model, ground-truth reward, {args.samples} completions of at most {NEW_TOKENS} tokens, target KL "
        f"{TARGET_KL:g} nats. Our settings: {config.samples_per_step} completions per step, {config.epochs_per_step} passes, "
        f"minibatch {config.minibatch_size}, learning rate {config.optim.lr:g}, rewards normalised; TRL with the same where it "
        "has them (its rate does not fall and its controller has no proportional part). TRL's defaults: 256 per step, 4 "
        "passes, minibatch 16, learning rate 1.41e-5, logits as rewards, horizon scaled to 0.4 of the run. Ours computes in "
        f"{config.optim.precision} where TRL's default is float32. One seed."
    )
    timed = (
        "Ours was run twice, before and after TRL's; the mean is shown. Shares: drawing completions, reward model, log-probs "
        f"under policy and reference, passes over them.\n\n{table(speed)}"
    )
    beside = (
        "Our reward is interpolated per prompt between our neighbouring snapshots, the reference included. Intervals: 95 % "
        f"over test prompts, conditional on the trained policies.\n\n{table(matched)}"
    )
    origin = made_here(f"{args.threads} threads", f"torch {torch.__version__}")
    return [
        ("", origin), ("", settings), ("Speed", timed), ("Reward at matched KL", beside), ("Every snapshot", table(every))
    ]  # fmt: skip


if __name__ == "__main__":
    run_script(main, Arguments, __doc__)
