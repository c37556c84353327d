"""The pure parts of PPO: advantages, whitening and the two clipped losses. One value per token, never reduced.

Tensors have shape (batch, time) and are given without gradient unless another thing is said. Every function raises ValueError
where shapes or types differ or a number is out of its range; the message names the argument.
"""

import torch
from torch import Tensor


def _check_shapes(**tensors: Tensor) -> None:
    first = next(iter(tensors))
    for name, tensor in tensors.items():
        if tensor.shape != tensors[first].shape or tensor.ndim != 2:
            expected = f"(batch, time) like {first} {tuple(tensors[first].shape)}"
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
        if (tensor.dtype == torch.bool) != (name == "mask") or not (name == "mask" or tensor.is_floating_point()):
            raise ValueError(f"{name}: expected {'bool' if name == 'mask' else 'floating point'}, got {tensor.dtype}")


def _check_clip_range(clip_range: float) -> None:
    if not clip_range > 0:
        raise ValueError(f"clip_range: expected a number > 0, got {clip_range}")


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation over completion tokens (Schulman et al. 2015, arXiv:1506.02438, Eqs. 11, 16).

    δ_t = r_t + γ·V_{t+1} - V_t,   A_t = δ_t + γλ·A_{t+1},   V and A = 0 after the last token; returns R_t = A_t + V_t

    Args:
        rewards: r_t, the reward for the token at t.
        values: V_t, the value before the token at t is drawn.
        mask: True on completion tokens: a prefix of each row, without gaps. Bool.
        gamma: Discount γ in [0, 1].
        lam: λ in [0, 1]; 1 sums all rewards to come, 0 looks one step ahead.

    Returns:
        Advantages and returns, 0 outside the mask.
    """
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
    _check_shapes(rewards=rewards, values=values, mask=mask)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("mask: completion tokens must come first and without gaps")
    rewards, values = (torch.where(mask, t.detach(), 0.0) for t in (rewards, values))
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = next_advantage = (delta + gamma * lam * next_advantage) * mask[:, t]
        next_value = values[:, t]
    return advantages, advantages + values


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True entries of `mask`, of which there must be some, all rows together. A scalar."""
    _check_shapes(values=values, mask=mask)
    if not mask.any():
        raise ValueError("mask: nothing to average over")
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the True entries (variance with n, not n - 1); 0 elsewhere."""
    centred = torch.where(mask, values - masked_mean(values, mask), 0.0)
    return centred * torch.rsqrt(masked_mean(centred.square(), mask) + 1e-8)


def ppo_clip_loss(policy_logps: Tensor, old_logps: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """PPO's clipped surrogate, negated: one value per token, to be averaged over completion tokens.

    L_t = -min(ρ_t·A_t, clip(ρ_t, 1 - ε, 1 + ε)·A_t),   ρ_t = π(y_t)/π_old(y_t);   Eq. 7 of Schulman et al. 2017
    (arXiv:1707.06347)

    Args:
        policy_logps: log π(y_t|x, y_<t) in nats, with gradient.
        old_logps: The same under the policy that drew y.
        advantages: A_t.
        clip_range: ε > 0.
    """
    _check_shapes(policy_logps=policy_logps, old_logps=old_logps, advantages=advantages)
    _check_clip_range(clip_range)
    ratio = (policy_logps - old_logps).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip_range: float) -> Tensor:
    """The critic's loss, one value per token: half the larger of the squared errors with and without clipping.

    L_t = ½·max[(V_t - R_t)², (V_old,t + clip(V_t - V_old,t, -ε, ε) - R_t)²]   (as in the PPO of OpenAI Baselines)

    Args:
        values: V_t, with gradient.
        old_values: V_t when y was drawn.
        returns: R_t from `gae`.
        clip_range: ε > 0, in reward units.
    """
    _check_shapes(values=values, old_values=old_values, returns=returns)
    _check_clip_range(clip_range)
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
