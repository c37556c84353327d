"""PPO-RLHF: proximal policy optimization of a reward with a KL penalty to the reference."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.ppo_rollout import (
    RewardScale,
    Rollout,
    draw_rollout,
    models_in,
    prompts_of_step,
    timed,
    token_log_probs_and_values,
)
from suite.data.batching import length_batches
from suite.interfaces import Policy, Promise, Run, TrainablePolicy, TrainingData
from suite.maths.kl import kl_terms
from suite.maths.policy_gradient import clipped_value_loss, masked_mean, ppo_clip_loss
from suite.training.loop import NonFiniteLoss, autocast
from suite.training.settings import OptimConfig, snapshot_steps


class KLExplosion(Exception):
    """The policy ran away from the reference; names the step. The last checkpoint is kept."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults were tried, not searched, on the embedded models.

    Of `optim` the learning rate, gradient clip, precision and snapshots count; the optimizer is Adam.
    """

    beta: float = 0.1
    """Weight of the KL penalty: fixed, or what the controller starts from."""
    target_kl: float | None = None
    """Sequence KL in nats per completion that the controller steers β to; None keeps β."""
    horizon: float = 0.05
    """Share of the run's samples in which the controller may change β by a factor of at most 1.2."""
    num_steps: int = 32
    """Rollouts."""
    samples_per_step: int = 128
    """Completions per rollout."""
    epochs_per_step: int = 2
    """Passes over each rollout."""
    minibatch_size: int = 64
    """Completions per optimizer step."""
    gamma: float = 1.0
    """Discount."""
    lam: float = 0.95
    """λ of GAE."""
    clip_range: float = 0.2
    """ε of the policy's clip."""
    value_clip_range: float = 0.2
    """ε of the critic's clip, in reward units."""
    value_coef: float = 0.1
    """Weight of the critic's loss."""
    value_lr: float = 1e-3
    """Learning rate of the value head; the trunk it reads has the policy's."""
    whiten_advantages: bool = True
    """Advantages with mean 0 and variance 1 over the tokens of a rollout."""
    normalise_rewards: bool = True
    """Rewards in standard deviations of the first rollout's, which the reference wrote; β is then per standard deviation."""
    logit_rewards: bool = False
    """Rewards in (0, 1) enter as ½·log(r/(1 - r)), the logit of a two-class classifier with symmetric logits."""
    no_eos_penalty: float = 0.0
    """Taken from the reward of a completion that ends without EOS."""
    max_approx_kl: float = 0.1
    """Stop the passes over a rollout when the policy has moved this far from it, mean nats per token."""
    max_kl: float = 50.0
    """Stop the run when the mean sequence KL exceeds this."""
    final_lr: float = 0.25
    """Share of the learning rates that is left at the end; they fall linearly to it."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))


@dataclass(frozen=True)
class PPOTRLConfig(PPOConfig):
    """TRL's defaults of 2023 (its sentiment example, one pass over 25,000 prompts), scaled to the embedded profile.

    256 samples per step are 32 here, an eighth, as 1024 are 128 in `PPOConfig`; the horizon of 10,000 samples stays 0.4 of
    the run.
    """

    beta: float = 0.2
    target_kl: float | None = 6.0
    samples_per_step: int = 32
    epochs_per_step: int = 4
    minibatch_size: int = 16
    normalise_rewards: bool = False
    logit_rewards: bool = True
    value_lr: float = 1.41e-5
    horizon: float = 0.4
    final_lr: float = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1.41e-5))


class PPO:
    """Maximise E[r] - β·KL(π‖π_ref) on its own samples (Schulman et al. 2017; Ziegler et al. 2019 for language models).

    Each step draws completions, gives every token the reward -β·(log π - log π_ref) and the last one the score too, estimates
    advantages by GAE with a value head on the policy's trunk, and takes clipped policy and value steps. With `target_kl` β
    follows the sequence KL. Logs, per step: `reward` as the reward function gave it, `kl` [nats per completion, k1], `beta`,
    `objective` = reward - β·kl with the reward as normalised and penalised, `entropy` [nats per token, sampled],
    `tokens_per_completion`, `no_eos`, `policy_loss`, `value_loss`, `explained_variance` of the returns by the values,
    `approx_kl` (k3 of the rollout's tokens, new against old), `clip_fraction`, `first_ratio` (largest |π/π_old - 1| before the
    first update), `epochs`, `grad_norm`, `lr`, `tokens`, `tokens_sampled`, `tokens_scored` (without gradient; by policy,
    reference and reward), and wall time by part: `seconds_sample`, `seconds_reward`, `seconds_score` (log-probs and values),
    `seconds_update`.
    """

    name: ClassVar[str] = "PPO"
    Config: ClassVar[type] = PPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    promise: ClassVar[Promise] = "follows_optimum"
    evaluated_from_pool: ClassVar[bool] = False

    def train(
        self, data: TrainingData, reference: TrainablePolicy, config: PPOConfig, run: Run, *,
        start: TrainablePolicy | None = None, scale: RewardScale | None = None,
    ) -> Policy:  # fmt: skip
        """PPO's loop, from a copy of the reference; or from `start`, which is trained itself, with `scale` in place of that of
        the first rollout.

        Raises:
            NonFiniteLoss: A loss or gradient is NaN or infinite; names the step.
            KLExplosion: The mean sequence KL exceeds `max_kl`; names the step.
        """
        if data.reward is None or data.max_new_tokens is None:
            raise ValueError("PPO needs prompts, a reward and max_new_tokens")
        policy = reference.copy() if start is None else start
        value_head = nn.Linear(policy.model.config.hidden_size, 1, device=policy.device)
        nn.init.zeros_(value_head.weight), nn.init.zeros_(value_head.bias)
        groups = [
            {"params": list(policy.model.parameters()), "lr": config.optim.lr},
            {"params": list(value_head.parameters()), "lr": config.value_lr},
        ]
        optimizer = torch.optim.Adam(groups, eps=1e-5)
        peaks = [group["lr"] for group in optimizer.param_groups]
        beta, scale, step = config.beta, scale or RewardScale(), 0
        if state := run.load_checkpoint():
            policy.model.load_state_dict(state["model"])
            value_head.load_state_dict(state["value_head"])
            optimizer.load_state_dict(state["optimizer"])
            beta, scale, step = state["beta"], RewardScale(*state["scale"]), state["step"]
            policy.tokens_trained, policy.tokens_sampled, policy.tokens_scored = state["tokens"]
        kept = set(snapshot_steps(config.num_steps, config.optim.num_snapshots))
        with run.progress(config.num_steps, "step", step) as bar:
            while step < config.num_steps:
                seed = 1_000_003 * (run.seed + 1) + step  # none of the seeds with which completions of pairs are drawn
                chosen, num_samples = prompts_of_step(data.prompts, config.samples_per_step, run.seed, step)
                rollout = draw_rollout(
                    policy, value_head, reference, data.reward, chosen, num_samples=num_samples,
                    max_new_tokens=data.max_new_tokens, seed=seed, beta=beta, config=config, scale=scale,
                )  # fmt: skip
                policy.tokens_sampled += int(rollout.mask.sum())
                readers = 2 + models_in(data.reward)  # π and π_ref too
                policy.tokens_scored += readers * sum(c.length for c in rollout.completions)
                kl = float(rollout.kl.mean())
                if not kl <= config.max_kl:
                    raise KLExplosion(
                        f"step {step + 1}: mean KL {kl:.1f} nats per completion, more than max_kl = {config.max_kl:g}; raise "
                        f"beta, lower the learning rate ({config.optim.lr:g}) or normalise rewards; the last checkpoint is kept"
                    )
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * (1 - (1 - config.final_lr) * step / config.num_steps)
                with timed(rollout.seconds, "update"):
                    metrics = update(policy, value_head, optimizer, rollout, config, seed=seed, step=step)
                step += 1
                run.log(step, {**_describe(rollout, beta), **metrics, "lr": optimizer.param_groups[0]["lr"],
                               **{f"seconds_{part}": took for part, took in rollout.seconds.items()},
                               "tokens": float(policy.tokens_trained), "tokens_sampled": float(policy.tokens_sampled),
                               "tokens_scored": float(policy.tokens_scored)})  # fmt: skip
                beta = next_beta(beta, kl, config)
                bar.update(1)
                if step in kept:
                    run.snapshot(policy, step)
                if run.checkpoint_due() and step < config.num_steps:
                    run.save_checkpoint(step, {
                        "model": policy.model.state_dict(), "value_head": value_head.state_dict(), "beta": beta,
                        "optimizer": optimizer.state_dict(), "scale": scale.state,
                        "tokens": [policy.tokens_trained, policy.tokens_sampled, policy.tokens_scored],
                    })  # fmt: skip
        return policy


class PPOGT(PPO):
    """The same given the ground-truth reward: what RLHF would reach with a perfect reward model."""

    name: ClassVar[str] = "PPO-GT"
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "gold_reward"})

    def train(
        self, data: TrainingData, reference: TrainablePolicy, config: PPOConfig, run: Run, **beginning: Any
    ) -> Policy:  # fmt: skip
        return super().train(replace(data, reward=data.gold_reward), reference, config, run, **beginning)


class PPOGTTRL(PPOGT):
    """PPO-GT with TRL's defaults of 2023 (`PPOTRLConfig`): the paper's second ground-truth baseline."""

    name: ClassVar[str] = "PPO-GT (TRL)"
    Config: ClassVar[type] = PPOTRLConfig
    promise: ClassVar[Promise] = "improves_reward"


def next_beta(beta: float, kl: float, config: PPOConfig) -> float:
    """The adaptive controller of Ziegler et al. 2019 (arXiv:1909.08593, sec. 2.2): β ← β·max(½, 1 + e·n/H).

    e = clip(KL/target - 1, -0.2, 0.2) with the *sequence* KL, n the samples of a step, H = `horizon` × all samples of the run.
    As published: it integrates past errors, which the policy answers some steps later, so that the KL swings around its target.
    """
    if config.target_kl is None:
        return beta
    error = min(max(kl / config.target_kl - 1, -0.2), 0.2)
    return beta * max(0.5, 1 + error / (config.horizon * config.num_steps))


def update(
    policy: TrainablePolicy, value_head: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, config: PPOConfig,
    *, seed: int, step: int,
) -> dict[str, float]:  # fmt: skip
    """Passes over one rollout in minibatches; returns means of the metrics."""
    logged: list[dict[str, float]] = []
    for epoch in range(config.epochs_per_step):
        order = torch.randperm(len(rollout.completions), generator=torch.Generator().manual_seed(seed * 1009 + epoch))
        for index in order.split(config.minibatch_size):
            row = _minibatch_step(policy, value_head, optimizer, rollout, index, config)
            if not all(map(math.isfinite, row.values())):
                raise NonFiniteLoss(
                    f"step {step + 1}: {row}; lower the learning rate ({config.optim.lr}); the last checkpoint is kept"
                )
            logged.append(row)
        if logged[-1]["approx_kl"] > config.max_approx_kl:
            break
    means = {name: sum(row[name] for row in logged) / len(logged) for name in logged[0]}
    return {**means, "first_ratio": logged[0]["first_ratio"], "epochs": epoch + 1.0}


def _minibatch_step(
    policy: TrainablePolicy, value_head: nn.Module, optimizer: torch.optim.Optimizer, rollout: Rollout, index: Tensor,
    config: PPOConfig,
) -> dict[str, float]:  # fmt: skip
    """One optimizer step; losses are means over the minibatch's tokens, whatever the micro-batch."""
    sums: dict[str, float] = {}
    total = rollout.mask[index].sum()
    first_ratio = 0.0
    lengths = [rollout.completions[i].length for i in index]
    for part in map(index.__getitem__, length_batches(lengths, lambda _: config.optim.micro_batch_size)):
        with autocast(policy.device, config.optim.precision):
            logps, values, mask = token_log_probs_and_values(policy, value_head, [rollout.completions[i] for i in part])
        width = mask.shape[1]
        old_logps, old_values, advantages, returns = (
            t[part, :width] for t in (rollout.logps, rollout.values, rollout.advantages, rollout.returns)
        )
        policy_losses = ppo_clip_loss(logps, old_logps, advantages, clip_range=config.clip_range)
        value_losses = clipped_value_loss(values, old_values, returns, clip_range=config.value_clip_range)
        ((policy_losses + config.value_coef * value_losses) * mask).sum().div(total).backward()
        with torch.no_grad():
            ratio = (logps - old_logps).exp()
            first_ratio = max(first_ratio, float(((ratio - 1).abs() * mask).max()))
            terms = {
                "policy_loss": policy_losses, "value_loss": value_losses,
                "approx_kl": kl_terms(old_logps, logps, estimator="k3"),
                "clip_fraction": ((ratio - 1).abs() > config.clip_range).float(),
            }  # fmt: skip
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float((value * mask).sum() / total)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm))
    if math.isfinite(sums["grad_norm"]):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**sums, "first_ratio": first_ratio}


def _describe(rollout: Rollout, beta: float) -> dict[str, float]:
    kl, reward = float(rollout.kl.mean()), float(rollout.scores.mean())
    variance = masked_mean((rollout.returns - masked_mean(rollout.returns, rollout.mask)).square(), rollout.mask)
    residual = masked_mean((rollout.returns - rollout.values).square(), rollout.mask)
    return {
        "reward": reward, "kl": kl, "beta": beta, "objective": float(rollout.objective.mean()),
        "entropy": -float(masked_mean(rollout.logps, rollout.mask)),
        "tokens_per_completion": float(rollout.mask.sum(1).float().mean()),
        "no_eos": sum(c.truncated for c in rollout.completions) / len(rollout.completions),
        "explained_variance": float(1 - residual / variance.clamp_min(1e-12)),
    }  # fmt: skip
