"""Rejection-sampling fine-tuning: the policy learns the best of its own samples by likelihood, again and again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from baselines.ppo_rollout import models_in, prompts_of_step
from suite.data.batching import length_batches
from suite.data.preference_data import Completion, Prompt
from suite.interfaces import Promise, Run, TrainablePolicy, TrainingData
from suite.maths.losses import nll_loss
from suite.training.loop import NonFiniteLoss, autocast
from suite.training.settings import OptimConfig, rate_share, snapshot_steps


@dataclass(frozen=True)
class RejectionSamplingConfig:
    """Settings of rejection sampling; the defaults were tried, not searched, on the embedded models.

    Of `optim` the learning rate, warm-up, gradient clip, precision, micro-batch and snapshots count.
    """

    n: int = 8
    """Samples of which the best is kept."""
    num_steps: int = 32
    """Times that the policy is sampled and then fine-tuned."""
    samples_per_step: int = 128
    """Completions that a step draws; one in `n` is kept."""
    epochs_per_step: int = 2
    """Passes over the kept completions of a step."""
    minibatch_size: int = 64
    """Completions per optimizer step."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))

    def __post_init__(self) -> None:
        if self.n < 1 or self.samples_per_step < 1 or self.samples_per_step % self.n:
            raise ValueError(f"samples_per_step {self.samples_per_step} is no multiple of n {self.n}; change one of them")


@dataclass(frozen=True)
class Best:
    """A kept completion and its reward."""

    completion: Completion
    reward: float


class RejectionSampling:
    """Fine-tune on the best of `n` of the policy's own samples (sec. 3.2.3 of Touvron et al. 2023, arXiv:2307.09288).

    Each step draws `n` completions of each of its prompts from the policy as it is, keeps the one that the reward scores
    highest, and raises the likelihood of the kept ones as supervised fine-tuning does: L = -log π(y|x), summed over completion
    tokens, by RMSprop with linear warm-up. A prompt that is met again keeps its earlier best unless a new sample is better; the
    paper brought back the best of all iterations, since without them some abilities were lost. Where there are fewer prompts
    than a step asks for, each has several times `n` completions, and the best of every `n` is kept.

    Nothing holds the policy to the reference but how little it is trained. Logs, per step: `reward` (mean of all samples),
    `best` (mean of the kept), `tokens_per_completion` and `no_eos` of the samples, `loss` [nats per kept completion],
    `grad_norm` before clipping, `lr`, `tokens`, `tokens_sampled`, `tokens_scored` (by the reward). No KL: it would cost passes
    of policy and reference that nothing else needs.
    """

    name: ClassVar[str] = "Rejection sampling"
    Config: ClassVar[type] = RejectionSamplingConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False

    def train(
        self, data: TrainingData, reference: TrainablePolicy, config: RejectionSamplingConfig, run: Run
    ) -> TrainablePolicy:  # fmt: skip
        """The loop of sampling, keeping and fine-tuning.

        Raises:
            NonFiniteLoss: A reward, the loss or its gradient is NaN or infinite; names the step.
        """
        if data.reward is None or data.max_new_tokens is None:
            raise ValueError("rejection sampling needs prompts, a reward and max_new_tokens")
        policy = reference.copy()
        optimizer = torch.optim.RMSprop(policy.model.parameters(), lr=config.optim.lr)
        kept, step = dict[str, list[Best]](), 0
        if state := run.load_checkpoint():
            policy.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            kept, step = _from_rows(state["kept"], data.prompts), state["step"]
            policy.tokens_trained, policy.tokens_sampled, policy.tokens_scored = state["tokens"]
        snapshots = set(snapshot_steps(config.num_steps, config.optim.num_snapshots))
        with run.progress(config.num_steps, "step", step) as bar:
            while step < config.num_steps:
                seed = 1_000_003 * (run.seed + 1) + step  # none of the seeds with which completions of pairs are drawn
                chosen, each = prompts_of_step(data.prompts, config.samples_per_step // config.n, run.seed, step)
                drawn = policy.sample(chosen, num_samples=each * config.n, max_new_tokens=data.max_new_tokens, seed=seed)
                completions = [c for some in drawn for c in some]
                given = data.reward([c.prompt.text for c in completions], [c.text for c in completions])
                rewards = np.asarray(given, dtype=float).reshape(len(chosen), -1)
                if not np.isfinite(rewards).all():
                    raise NonFiniteLoss(f"step {step + 1}: a reward is no finite number; the last checkpoint is kept")
                for prompt, some, scores in zip(chosen, drawn, rewards, strict=True):
                    kept[prompt.id] = best_of_each(some, scores.tolist(), config.n, kept.get(prompt.id, []))
                learned = [best for prompt in chosen for best in kept[prompt.id]]
                policy.tokens_sampled += sum(len(c.ids) for c in completions)
                policy.tokens_scored += models_in(data.reward) * sum(c.length for c in completions)
                metrics = fine_tune(policy, optimizer, [best.completion for best in learned], config, seed=seed, step=step)
                step += 1
                run.log(step, {
                    "reward": float(rewards.mean()), "best": float(np.mean([best.reward for best in learned])),
                    "tokens_per_completion": float(np.mean([len(c.ids) for c in completions])),
                    "no_eos": float(np.mean([c.truncated for c in completions])), **metrics,
                    "tokens": float(policy.tokens_trained), "tokens_sampled": float(policy.tokens_sampled),
                    "tokens_scored": float(policy.tokens_scored),
                })  # fmt: skip
                bar.update(1)
                if step in snapshots:
                    run.snapshot(policy, step)
                if run.checkpoint_due() and step < config.num_steps:
                    run.save_checkpoint(step, {
                        "model": policy.model.state_dict(), "optimizer": optimizer.state_dict(), "kept": _as_rows(kept),
                        "tokens": [policy.tokens_trained, policy.tokens_sampled, policy.tokens_scored],
                    })  # fmt: skip
        return policy


def best_of_each(completions: Sequence[Completion], rewards: Sequence[float], n: int, before: Sequence[Best]) -> list[Best]:
    """The best of every `n` completions in turn, of equal ones the first; or what stood there before, unless it is worse.

    Args:
        completions: Of one prompt; `n` for every place.
        rewards: One per completion.
        n: Of how many one is kept.
        before: What the prompt has kept so far, place by place; empty if it is met for the first time.
    """
    found = []
    for first in range(0, len(completions), n):
        place = max(range(first, first + n), key=rewards.__getitem__)
        found.append(Best(completions[place], rewards[place]))
    return [max(pair, key=lambda best: best.reward) for pair in zip(before, found, strict=True)] if before else found


def fine_tune(
    policy: TrainablePolicy, optimizer: torch.optim.Optimizer, completions: Sequence[Completion],
    config: RejectionSamplingConfig, *, seed: int, step: int,
) -> dict[str, float]:  # fmt: skip
    """Passes over the kept completions of one step in minibatches; returns means of the metrics, and the last learning rate."""
    per_step = config.epochs_per_step * -(-len(completions) // config.minibatch_size)
    logged: list[dict[str, float]] = []
    for epoch in range(config.epochs_per_step):
        order = torch.randperm(len(completions), generator=torch.Generator().manual_seed(seed * 1009 + epoch))
        for index in order.split(config.minibatch_size):
            for group in optimizer.param_groups:
                done, total = step * per_step + len(logged), config.num_steps * per_step
                group["lr"] = config.optim.lr * rate_share(done, total, config.optim)
            row = _minibatch_step(policy, optimizer, [completions[i] for i in index], config.optim)
            if not all(map(math.isfinite, row.values())):
                raise NonFiniteLoss(
                    f"step {step + 1}: {row}; lower the learning rate ({config.optim.lr}); the last checkpoint is kept"
                )
            logged.append(row)
    means = {name: sum(row[name] for row in logged) / len(logged) for name in logged[0]}
    return {**means, "lr": optimizer.param_groups[0]["lr"]}


def _minibatch_step(
    policy: TrainablePolicy, optimizer: torch.optim.Optimizer, completions: Sequence[Completion], optim: OptimConfig
) -> dict[str, float]:
    """One optimizer step on the mean loss of the completions, whatever the micro-batch."""
    total = 0.0
    for part in length_batches([c.length for c in completions], lambda _: optim.micro_batch_size):
        with autocast(policy.device, optim.precision):
            losses: Tensor = nll_loss(policy.completion_log_probs([completions[i] for i in part]))
        (losses.sum() / len(completions)).backward()
        total += float(losses.detach().sum())
    grad_norm = float(torch.nn.utils.clip_grad_norm_(policy.model.parameters(), optim.max_grad_norm))
    if math.isfinite(grad_norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": total / len(completions), "grad_norm": grad_norm}


def _as_rows(kept: dict[str, list[Best]]) -> dict[str, list[Any]]:
    """What a checkpoint holds of the kept completions: plain values, without the prompts."""
    return {
        prompt: [(list(b.completion.ids), b.completion.text, b.completion.truncated, b.reward) for b in bests]
        for prompt, bests in kept.items()
    }


def _from_rows(rows: dict[str, list[Any]], prompts: Sequence[Prompt]) -> dict[str, list[Best]]:
    known = {prompt.id: prompt for prompt in prompts}
    return {
        prompt: [Best(Completion(known[prompt], tuple(ids), text, truncated), reward) for ids, text, truncated, reward in bests]
        for prompt, bests in rows.items()
    }
