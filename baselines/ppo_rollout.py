"""PPO's data: completions of the current policy with their log-probs, values, shaped rewards and advantages."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from suite.data.batching import length_batches
from suite.data.preference_data import Completion, Prompt
from suite.interfaces import RewardFunction, TrainablePolicy
from suite.maths.kl import sequence_kl
from suite.maths.policy_gradient import gae, masked_whiten
from suite.training.loop import autocast, epoch_order
from suite.training.settings import OptimConfig


@dataclass(frozen=True)
class Rollout:
    """What one PPO step learns from. Tensors over tokens have shape (completions, longest), no gradient, 0 outside `mask`."""

    completions: list[Completion]  # drawn from the policy as it was
    mask: Tensor  # True on completion tokens
    logps: Tensor  # log π_old(y_t|x, y_<t), nats
    values: Tensor  # V_old before each token
    advantages: Tensor  # GAE, whitened over all tokens if asked for
    returns: Tensor  # GAE plus values, what the critic is to predict
    scores: Tensor  # reward of each completion as the reward function gave it. Shape (completions,)
    kl: Tensor  # log π(y|x) - log π_ref(y|x) of each completion, nats. Shape (completions,)
    objective: Tensor  # reward as normalised and penalised, less β·kl: what the step raises. Shape (completions,)
    seconds: dict[str, float]  # wall time by part: `sample`, `reward`, `score`


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Add the wall time of what is done within to a part's."""
    began = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began


class RewardScale:
    """Mean and standard deviation of the first rewards that it is given, in units of which later ones are expressed.

    The first rollout is the reference's own, so that β is per standard deviation of the reward on the reference and means the
    same throughout the run. Where all of the first are equal, the unit stays that of the reward.
    """

    def __init__(self, mean: float | None = None, std: float = 1.0) -> None:
        self.mean, self.std = mean, std

    def normalise(self, scores: Tensor) -> Tensor:
        if self.mean is None:
            self.mean, spread = float(scores.mean()), float(scores.std(unbiased=False))
            self.std = spread if spread > 1e-8 * max(1.0, abs(self.mean)) else 1.0
        return (scores - self.mean) / self.std

    @property
    def state(self) -> tuple[float | None, float]:
        return self.mean, self.std


def models_in(reward: RewardFunction) -> int:
    """How many models read a text that the reward scores: one, where it does not say."""
    return int(getattr(reward, "readers", 1))


def prompts_of_step(prompts: Sequence[Prompt], samples: int, seed: int, step: int) -> tuple[list[Prompt], int]:
    """The prompts of one PPO step and the samples of each, `samples` together: as many different prompts as there are among
    which the samples divide without rest, in an order that reshuffles.

    A function of its arguments alone, so that a resumed run agrees.
    """
    count = next(count for count in range(min(len(prompts), samples), 0, -1) if samples % count == 0)
    per_epoch = len(prompts) // count
    epoch, at = divmod(step, per_epoch)
    order = epoch_order(len(prompts), seed, epoch)[at * count : (at + 1) * count]
    return [prompts[i] for i in order], samples // count


def token_log_probs_and_values(
    policy: TrainablePolicy, value_head: nn.Module, completions: Sequence[Completion]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log π(y_t|x, y_<t) [nats], V before each token, and the mask, each (completions, longest), float32, with gradient."""
    logps, states, mask = policy.completion_states(completions)
    values = value_head(states.float()).squeeze(-1)
    return logps, torch.where(mask, values, 0.0), mask


def shaped_rewards(logps: Tensor, reference_logps: Tensor, mask: Tensor, scores: Tensor, *, beta: float) -> Tensor:
    """r_t = -β·[log π(y_t) - log π_ref(y_t)], plus the completion's score on its last token (Ziegler et al. 2019, sec. 2.1).

    Args:
        logps: log π of the tokens under the policy that drew them. Shape (batch, time).
        reference_logps: log π_ref, same shape.
        mask: True on completion tokens, same shape.
        scores: Shape (batch,).
        beta: Weight of the KL penalty, ≥ 0.

    Returns:
        Shape (batch, time), 0 outside the mask; sums over time to score - β·k1.
    """
    rewards = torch.where(mask, -beta * (logps - reference_logps), 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


@torch.no_grad()
def draw_rollout(
    policy: TrainablePolicy, value_head: nn.Module, reference: TrainablePolicy, reward: RewardFunction,
    prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, seed: int, beta: float, config: Any,
    scale: RewardScale,
) -> Rollout:  # fmt: skip
    """Sample, score, shape rewards and estimate advantages. `config` is a `PPOConfig`; `scale` is set by the first rollout."""
    seconds: dict[str, float] = {}
    with timed(seconds, "sample"):
        drawn = policy.sample(prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed)
    completions = [c for some in drawn for c in some]
    with timed(seconds, "reward"):
        given = reward([c.prompt.text for c in completions], [c.text for c in completions])
    scores = torch.tensor(np.asarray(given), dtype=torch.float64).to(policy.device)
    with timed(seconds, "score"):
        logps, values, mask, reference_logps = _scored(policy, value_head, reference, completions, config.optim)
    kl = sequence_kl(logps, reference_logps, mask, estimator="k1")
    shaped = _logits(scores) if config.logit_rewards else scores
    if config.normalise_rewards:
        shaped = scale.normalise(shaped)
    shaped = shaped - config.no_eos_penalty * torch.tensor([c.truncated for c in completions], device=shaped.device)
    rewards = shaped_rewards(logps, reference_logps, mask, shaped, beta=beta)
    advantages, returns = gae(rewards, values, mask, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return Rollout(completions, mask, logps, values, advantages, returns, scores, kl, rewards.sum(1), seconds)


def _scored(
    policy: TrainablePolicy, value_head: nn.Module, reference: TrainablePolicy, completions: Sequence[Completion],
    optim: OptimConfig,
) -> list[Tensor]:  # fmt: skip
    """Log-probs, values and mask under the policy, in one pass, and log-probs under the reference, each by completion."""
    rows: list[tuple[Tensor, ...]] = [()] * len(completions)
    with autocast(policy.device, optim.precision):
        for index in length_batches([c.length for c in completions], lambda _: optim.micro_batch_size):
            batch = [completions[i] for i in index]
            of_reference, _ = reference.completion_token_log_probs(batch)
            found = (*token_log_probs_and_values(policy, value_head, batch), of_reference)
            for i, *row in zip(index, *found, strict=True):
                rows[i] = tuple(row)
    return [pad_sequence(list(column), batch_first=True) for column in zip(*rows, strict=True)]


def _logits(scores: Tensor) -> Tensor:
    if not ((scores > 0) & (scores < 1)).all():
        raise ValueError(f"logit_rewards: expected rewards in (0, 1), got {float(scores.min()):g} to {float(scores.max()):g}")
    return 0.5 * torch.logit(scores)
