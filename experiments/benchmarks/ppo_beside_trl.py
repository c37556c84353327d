"""Our PPO beside the last one of TRL (0.11.4): reward at matched KL, completions per second, and where the time goes.

Same model, prompts, ground-truth reward, number of completions, batch sizes, passes and threads, one after the other on the
same machine, ours before and after TRL's since a machine's speed drifts; both policies are measured by our evaluation on the
same test prompts. TRL runs in an environment of its own (see trl_ppo.py): with our settings in fp32 and in bf16, and with its
defaults.

examples:
  python experiments/benchmarks/ppo_beside_trl.py --peer-python ENV/bin/python
  python experiments/benchmarks/ppo_beside_trl.py --peer-python ENV/bin/python --samples 512 --out /tmp/quick
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import tyro
from transformers import AutoModelForCausalLM

import baselines.ppo
from baselines.ppo import PPOGT, PPOConfig
from baselines.ppo_rollout import prompts_of_step
from suite.data.preference_data import Prompt
from suite.data.tasks.imdb_sentiment import prompts_from_model
from suite.errors import UserError, one_line_errors
from suite.evaluation.reward_kl import evaluate_reward_kl
from suite.files import write_atomically
from suite.interfaces import TrainingData
from suite.maths.statistics import mean_interval, paired_difference
from suite.policies.causal_lm import CausalLMPolicy, bfloat16_is_native
from suite.rewards.text_rewards import ClassifierReward
from suite.runs.run_store import RunSpec, open_run
from suite.runs.study import ASSETS
from suite.runs.sweep import available_cores, quiet_libraries
from suite.training.loop import OptimConfig, snapshot_steps

MODEL, GOLD = ASSETS / "imdb-gpt2", ASSETS / "imdb-sentiment"
TARGET_KL, NEW_TOKENS = 6.0, 32
SNAPSHOTS, PEER_SNAPSHOTS = 8, 4
PARTS = ("sample", "reward_model", "score", "update")


@dataclass(frozen=True)
class Arguments:
    """Command line of the benchmark."""

    peer_python: Path = Path("ENV/bin/python")
    """Python of the environment that has TRL 0.11.4 (see trl_ppo.py)."""
    samples: int = 4096
    """Completions per run."""
    lr: float = 1e-4
    """Learning rate of ours, and of TRL with our settings."""
    test_prompts: int = 192
    threads: int = available_cores()
    out: Path = Path(__file__).parents[2] / "results" / "benchmarks"
    """Where ppo_beside_trl.md and .csv go."""
    work: Path = Path("/tmp/ppo_beside_trl")
    """Where policies are kept; must be empty or absent."""


@one_line_errors
def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    if not arguments.peer_python.exists():
        raise UserError(f"--peer-python {arguments.peer_python}: does not exist; trl_ppo.py says how to make the environment")
    if arguments.work.exists() and any(arguments.work.iterdir()):
        raise UserError(f"--work {arguments.work}: is not empty; remove it or choose another")
    torch.set_num_threads(arguments.threads)
    quiet_libraries()
    precision = "bfloat16" if bfloat16_is_native() else "float32"
    reference = CausalLMPolicy.load(MODEL, sampler_dtype=getattr(torch, precision))
    reward = ClassifierReward.load(GOLD)
    sizes = {"train": 768, "test": arguments.test_prompts}
    train, test = (prompts_from_model(reference, split, size, seed=0) for split, size in sizes.items())
    steps = max(1, arguments.samples // PPOConfig.samples_per_step)
    config = PPOConfig(
        target_kl=TARGET_KL, num_steps=steps,
        optim=OptimConfig(lr=arguments.lr, num_snapshots=min(SNAPSHOTS, steps), precision=precision),
    )  # fmt: skip
    mine = f"ours, {precision}"
    runs = {mine: time_ours(config, train, reference, reward, arguments.work / "ours")}
    for name, job in peer_jobs(config, train, arguments).items():
        runs[name] = time_peer(job, arguments)
    again, _ = time_ours(config, train, reference, reward, arguments.work / "ours-again")
    runs[mine] = ({part: (seconds + again[part]) / 2 for part, seconds in runs[mine][0].items()}, runs[mine][1])
    start = evaluate(reference, reference, reward, test)
    points = {name: evaluate_all(folder, reference, reward, test) for name, (_, folder) in runs.items()}
    page, table = report(runs, points, start, config, arguments, precision)
    write_atomically(arguments.out / "ppo_beside_trl.md", lambda path: path.write_text(page))
    write_atomically(arguments.out / "ppo_beside_trl.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    print(page)
    return 0


def time_ours(
    config: PPOConfig, train: list[Prompt], reference: CausalLMPolicy, reward: ClassifierReward, work: Path
) -> tuple[dict[str, float], Path]:
    """Seconds by part, and the folder of snapshots."""
    seconds = dict.fromkeys((*PARTS, "rollout"), 0.0)

    def timed(part: str, function: Callable) -> Callable:
        def call(*args: Any, **keywords: Any) -> Any:
            with adding(seconds, part):
                return function(*args, **keywords)

        return call

    patches = (
        mock.patch.object(CausalLMPolicy, "sample", timed("sample", CausalLMPolicy.sample)),
        mock.patch.object(baselines.ppo, "draw_rollout", timed("rollout", baselines.ppo.draw_rollout)),
        mock.patch.object(baselines.ppo, "update", timed("update", baselines.ppo.update)),
    )
    data = TrainingData(prompts=train, gold_reward=timed("reward_model", reward), max_new_tokens=NEW_TOKENS)
    with open_run(work, RunSpec("train", {"seed": 0})) as run, patches[0], patches[1], patches[2]:
        PPOGT().train(data, reference, config, run)
    seconds["score"] = seconds["rollout"] - seconds["sample"] - seconds["reward_model"]
    seconds["all"] = seconds.pop("rollout") + seconds["update"]
    seconds["completions"] = config.num_steps * config.samples_per_step
    return seconds, run.directory / "snapshots"


@contextmanager
def adding(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - began


def peer_jobs(config: PPOConfig, train: list[Prompt], arguments: Arguments) -> dict[str, dict[str, Any]]:
    """TRL with our settings in both arithmetics, and with its defaults."""
    samples = arguments.samples
    ours = {
        "learning_rate": config.optim.lr, "batch_size": config.samples_per_step, "mini_batch_size": config.minibatch_size,
        "ppo_epochs": config.epochs_per_step, "init_kl_coef": config.beta, "target": TARGET_KL,
        "horizon": config.horizon * samples,
        "max_grad_norm": config.optim.max_grad_norm,
    }  # fmt: skip
    defaults = {"batch_size": 256, "mini_batch_size": 16, "ppo_epochs": 4, "target": TARGET_KL, "horizon": 0.4 * samples}
    settings = {
        "TRL, our settings, float32": (ours, False),
        "TRL, our settings, bfloat16": ({**ours, "accelerator_kwargs": {"mixed_precision": "bf16", "cpu": True}}, False),
        "TRL, its defaults, float32": (defaults, True),
    }
    jobs = {}
    for name, (settings_of_run, logits) in settings.items():
        size = settings_of_run["batch_size"]
        steps = max(1, samples // size)
        chosen = [prompts_of_step(train, size, 0, step)[0] for step in range(steps)]
        jobs[name] = {
            "model": str(MODEL), "gold_reward": str(GOLD), "logit_rewards": logits, "normalise": not logits, "seed": 0,
            "config": settings_of_run, "prompts": [[list(prompt.ids) for prompt in some] for some in chosen],
            "max_new_tokens": NEW_TOKENS, "snapshots": snapshot_steps(steps, min(PEER_SNAPSHOTS, steps)),
            "threads": arguments.threads, "out": str(arguments.work / name.replace(", ", "-").replace(" ", "-")),
        }  # fmt: skip
    return jobs


def time_peer(job: dict[str, Any], arguments: Arguments) -> tuple[dict[str, float], Path]:
    """As `time_ours`, in the peer's environment."""
    out = Path(job["out"])
    out.mkdir(parents=True)
    (out / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("trl_ppo.py")
    done = subprocess.run([arguments.peer_python, script, out / "job.json"], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{script.name} failed ({done.returncode}): {done.stderr.strip().rpartition(chr(10))[2] or 'killed'}")
    steps = pd.DataFrame(json.loads((out / "steps.json").read_text()))
    return {**steps[[*PARTS, "all"]].sum().to_dict(), "completions": sum(map(len, job["prompts"]))}, out


def evaluate(policy: CausalLMPolicy, reference: CausalLMPolicy, reward: ClassifierReward, test: list[Prompt]) -> pd.DataFrame:
    """Reward and exact KL per test prompt, in float32."""
    policy.sampler_dtype = None
    frame = evaluate_reward_kl(policy, reference, reward, test, num_samples=1, max_new_tokens=NEW_TOKENS, seed=0)
    return frame.groupby("prompt_id")[["reward", "kl_exact"]].mean()


def evaluate_all(
    folder: Path, reference: CausalLMPolicy, reward: ClassifierReward, test: list[Prompt]
) -> dict[int, pd.DataFrame]:
    """Every snapshot of a run by its step; both libraries write them with `save_pretrained`."""
    found = {}
    for path in sorted(folder.glob("step-*")):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        policy = CausalLMPolicy(model, reference.tokenizer)
        found[int(path.name.removeprefix("step-"))] = evaluate(policy, reference, reward, test)
    return found


def at_kl(points: list[pd.DataFrame], kl: float) -> pd.Series | None:
    """Reward per prompt at a mean KL, linear between the two snapshots on the way there that enclose it; None beyond them."""
    means = [float(point["kl_exact"].mean()) for point in points]
    for left, right, low, high in zip(points, points[1:], means, means[1:], strict=False):
        if min(low, high) <= kl <= max(low, high) and low != high:
            share = (kl - low) / (high - low)
            return (1 - share) * left["reward"] + share * right["reward"]
    return None


def report(
    runs: dict[str, tuple[dict[str, float], Path]], points: dict[str, dict[int, pd.DataFrame]], start: pd.DataFrame,
    config: PPOConfig, arguments: Arguments, precision: str,
) -> tuple[str, pd.DataFrame]:  # fmt: skip
    """The page and the table of every evaluated policy."""
    names = list(runs)
    mine = names[0]
    speed = []
    for name, (seconds, _) in runs.items():
        rate = seconds["completions"] / seconds["all"]
        shares = {part: f"{seconds[part] / seconds['all']:.0%}" for part in PARTS}
        ratio = runs[mine][0]["completions"] / runs[mine][0]["all"] / rate
        speed.append({"run": name, "completions/s": f"{rate:.1f}", "seconds": f"{seconds['all']:.0f}", **shares,
                      "ours is faster by": f"{ratio:.1f}×"})  # fmt: skip
    rows, matched = [], []
    path = [start, *points[mine].values()]
    for name, found in points.items():
        for step, frame in found.items():
            reward, kl = mean_interval(frame["reward"]), mean_interval(frame["kl_exact"])
            row = {"run": name, "step": step, "reward": reward.mean, "reward_low": reward.low, "reward_high": reward.high,
                   "kl": kl.mean, "kl_low": kl.low, "kl_high": kl.high, "n": reward.n}  # fmt: skip
            rows.append(row)
            ours = at_kl(path, kl.mean)
            if name != mine and ours is not None:
                difference = paired_difference(ours, frame["reward"])
                interval = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference[:3])
                tied = " statistically tied" if difference.low <= 0 <= difference.high else ""
                matched.append(
                    {"TRL's policy": f"{name}, step {step}", "KL, nats": f"{kl.mean:.2f}", "its reward": f"{reward.mean:.3f}",
                     "ours at this KL": f"{np.mean(ours):.3f}",
                     "ours minus TRL, same prompts": interval + tied}
                )  # fmt: skip
    table = pd.DataFrame(rows)
    shown = table.assign(
        **{metric: [f"{r[metric]:.3f} [{r[f'{metric}_low']:.3f}, {r[f'{metric}_high']:.3f}]" for _, r in table.iterrows()]
           for metric in ("reward", "kl")}
    )[["run", "step", "reward", "kl", "n"]]  # fmt: skip
    page = (
        "# Our PPO beside TRL 0.11.4\n\n"
        f"`{' '.join(['python experiments/benchmarks/ppo_beside_trl.py', *sys.argv[1:]])}`  \n"
        f"{date.today()}, {platform.machine()}, {arguments.threads} threads, torch {torch.__version__}\n\n"
        f"Embedded 5.3M model, ground-truth reward, {arguments.samples} completions of at most {NEW_TOKENS} tokens, target KL "
        f"{TARGET_KL:g} nats. Our settings: {config.samples_per_step} completions per step, {config.epochs_per_step} passes, "
        f"minibatch {config.minibatch_size}, learning rate {config.optim.lr:g}, rewards normalised; TRL with the same where it "
        "has them (its rate does not fall and its controller has no proportional part). TRL's defaults: 256 per step, 4 "
        "passes, minibatch 16, learning rate 1.41e-5, logits as rewards, horizon scaled to 0.4 of the run. Ours computes in "
        f"{precision} where TRL's default is float32. One seed.\n\n"
        "## Speed\n\nOurs was run twice, before and after TRL's; the mean is shown. Shares: drawing completions, reward "
        "model, log-probs under policy and reference, passes over them.\n\n"
        f"{pd.DataFrame(speed).to_markdown(index=False)}\n\n"
        "## Reward at matched KL\n\nOur reward is interpolated per prompt between our neighbouring snapshots, the reference "
        "included. Intervals: 95 % over test prompts, conditional on the trained policies.\n\n"
        f"{pd.DataFrame(matched).to_markdown(index=False)}\n\n"
        f"## Every snapshot\n\n{shown.to_markdown(index=False)}\n"
    )
    return page, table


if __name__ == "__main__":
    sys.exit(main())
