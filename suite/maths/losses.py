"""Losses of the offline methods: pure functions, one value per example, never reduced.

Log-probabilities are in nats, of shape (batch,) unless another is named. Whether they are summed or averaged over completion
tokens is the caller's choice and is said where it matters; no loss here knows a length. Every function raises ValueError where
shapes differ or a number is out of its range; the message names the argument. Losses of PPO: `suite.maths.policy_gradient`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def _check_same_shape(**tensors: Tensor) -> None:
    names, shapes = list(tensors), [tuple(t.shape) for t in tensors.values()]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0] or len(shape) != 1:
            raise ValueError(f"{name}: expected shape (batch,) like {names[0]} {shapes[0]}, got {shape}")


def _check_positive(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(f"beta: expected a finite number > 0, got {beta}")


def _check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing: expected a probability in [0, 0.5), got {label_smoothing}")


def _margin(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
) -> Tensor:  # fmt: skip
    """The h of every pairwise loss: log[π(y_w|x)/π_ref(y_w|x)] - log[π(y_l|x)/π_ref(y_l|x)]."""
    _check_same_shape(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps, reference_rejected_logps=reference_rejected_logps,
    )  # fmt: skip
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def dpo_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    *, beta: float, label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Direct Preference Optimization loss in nats, one value per pair: log 2 when policy equals reference.

    L = -(1 - ε)·log σ(β·h) - ε·log σ(-β·h),   h = log[π(y_w|x)/π_ref(y_w|x)] - log[π(y_l|x)/π_ref(y_l|x)]
    ε = 0: Eq. 7 of Rafailov et al. 2023 (arXiv:2305.18290). ε > 0: conservative DPO, Mitchell 2023 (ericmitchell.ai/cdpo.pdf),
    whose minimum on one pair is finite: β·h = log[(1 - ε)/ε].

    Args:
        policy_chosen_logps: log π(y_w|x), summed over completion tokens like the other three.
        policy_rejected_logps: log π(y_l|x).
        reference_chosen_logps: log π_ref(y_w|x).
        reference_rejected_logps: log π_ref(y_l|x).
        beta: Weight of the KL constraint, > 0. Larger keeps the policy closer to the reference.
        label_smoothing: ε, the assumed probability that a pair is mislabelled, in [0, 0.5).
    """
    _check_positive(beta)
    _check_label_smoothing(label_smoothing)
    z = beta * _margin(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    if label_smoothing == 0:
        return -functional.logsigmoid(z)
    return -(1 - label_smoothing) * functional.logsigmoid(z) - label_smoothing * functional.logsigmoid(-z)


def robust_dpo_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    *, beta: float, label_smoothing: float, max_margin: float = 10.0,
) -> Tensor:  # fmt: skip
    """Robust DPO: from labels flipped with probability ε, an estimate of the DPO loss that clean labels would give.

    L = [-(1 - ε)·log σ(z) + ε·log σ(-z)] / (1 - 2ε),   z = min(β·h, max_margin)
    Chowdhury et al. 2024 (arXiv:2403.00409), who have z = β·h: unbiased, but unbounded below. On a pair whose label is never
    contradicted, z → ∞ lowers it without end, by ε/(1 - 2ε) per nat. Hence the guard: above `max_margin` the loss is constant
    and a pair pushes no further (there DPO's own gradient is below 5e-5·β). It is unbiased while |β·h| ≤ `max_margin`. The
    loss, in nats, is negative for well separated pairs.

    Args:
        policy_chosen_logps: As in `dpo_loss`, like the other three and `beta`.
        label_smoothing: ε, the probability that a label was flipped, in [0, 0.5).
        max_margin: The guard > 0, in nats of implicit reward; infinity for the published form.
    """
    _check_positive(beta)
    _check_label_smoothing(label_smoothing)
    if not max_margin > 0:
        raise ValueError(f"max_margin: expected a number > 0, got {max_margin}")
    h = _margin(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    z = (beta * h).clamp(max=max_margin)
    clean, flipped = -functional.logsigmoid(z), -functional.logsigmoid(-z)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def ipo_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    *, beta: float,
) -> Tensor:  # fmt: skip
    """Identity Preference Optimization, one value in nats² per pair: 1/(4β²) when policy equals reference.

    L = (h - 1/(2β))²,   Eq. 17 of Azar et al. 2023 (arXiv:2310.12036), whose τ is `beta`

    With log-probabilities summed over tokens (`ipo_sum`: the DPO authors' code) the target margin 1/(2β) is in nats per
    completion; divided by the completions' lengths (`ipo_mean`: TRL) it is in nats per token. The two are different losses, and
    one β means different things in them.

    Args:
        policy_chosen_logps: As in `dpo_loss`, like the other three: all four summed or all four averaged over tokens.
        beta: The τ of the paper, > 0.
    """
    _check_positive(beta)
    h = _margin(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    return (h - 1 / (2 * beta)).square()


def hinge_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    *, beta: float,
) -> Tensor:  # fmt: skip
    """Hinge loss on the implicit reward margin, one value per pair; arguments as in `dpo_loss`.

    L = max(0, 1 - β·h),   the "hinge-norm" of Liu et al. 2023 (RSO, arXiv:2309.06657); SLiC's loss (Zhao et al. 2023,
    arXiv:2305.10425) has no reference. Pairs with β·h ≥ 1 have no gradient.
    """
    _check_positive(beta)
    h = _margin(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    return functional.relu(1 - beta * h)


def plackett_luce_dpo_loss(policy_logps: Tensor, reference_logps: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """DPO for rankings: the negative log-likelihood of each in nats, log k! for k completions when policy equals reference.

    L = -Σ_k log[exp(r̂_k) / Σ_{j ≥ k} exp(r̂_j)],   r̂_k = β·log[π(y_k|x)/π_ref(y_k|x)],   y_1 the best
    Eq. 20 (App. A.3) of Rafailov et al. 2023 (arXiv:2305.18290). With K = 2 it equals `dpo_loss`.

    Args:
        policy_logps: log π(y_k|x) in nats, summed over completion tokens, best completion first. Shape (batch, K).
        reference_logps: log π_ref(y_k|x), likewise.
        mask: True where a completion exists: at least the first two of each ranking, without gaps. Shape (batch, K), bool.
        beta: Weight of the KL constraint, > 0.
    """
    _check_positive(beta)
    if policy_logps.ndim != 2 or not policy_logps.shape == reference_logps.shape == mask.shape:
        raise ValueError(
            f"expected shape (batch, K) for all, got policy_logps {tuple(policy_logps.shape)}, "
            f"reference_logps {tuple(reference_logps.shape)}, mask {tuple(mask.shape)}"
        )
    if mask.shape[1] < 2 or not mask[:, :2].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("mask: every ranking needs at least two completions, and no gaps between them")
    scores = beta * (policy_logps - reference_logps)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # not -inf, whose gradient is NaN
    from_k_on = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (from_k_on - scores).masked_fill(~mask, 0.0).sum(-1)


def bradley_terry_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, *, margin: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of a preference under a reward model, one value per pair.

    L = -log σ(r(x, y_w) - r(x, y_l) - m),   Eq. 2 of Rafailov et al. 2023 for m = 0; with margin, Eq. 2 of Touvron et al. 2023
    (Llama 2, arXiv:2307.09288), where m grows with how much better y_w was judged.

    Args:
        chosen_rewards: r(x, y_w). Shape (batch,), like the loss in nats.
        rejected_rewards: r(x, y_l), likewise.
        margin: m per pair, in reward units; None for 0.
    """
    margins = {} if margin is None else {"margin": margin}
    _check_same_shape(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, **margins)
    difference = chosen_rewards - rejected_rewards
    return -functional.logsigmoid(difference if margin is None else difference - margin)


def nll_loss(policy_logps: Tensor) -> Tensor:
    """Negative log-likelihood of whole completions, L = -log π(y|x) (SFT, Preferred-FT), in nats. Shape (batch,) in and out."""
    _check_same_shape(policy_logps=policy_logps)
    return -policy_logps


def unlikelihood_loss(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, *, alpha: float) -> Tensor:
    """The DPO paper's unlikelihood baseline, one value per pair.

    L = -log π(y_w|x) + α·log π(y_l|x),   sec. 6 of Rafailov et al. 2023 (arXiv:2305.18290)

    It is unbounded below: log π(y_l|x) → -∞ lowers it without end. The paper's Table 3 shows meaningless samples of it. The
    bounded per-token form is `welleck_unlikelihood_loss`.

    Args:
        policy_chosen_logps: log π(y_w|x), summed over completion tokens. Shape (batch,), like the loss in nats.
        policy_rejected_logps: log π(y_l|x), likewise.
        alpha: Weight of the rejected completion, in [0, 1]. 0 is Preferred-FT.
    """
    _check_same_shape(policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number in [0, 1], got {alpha}")
    return -policy_chosen_logps + alpha * policy_rejected_logps


def welleck_unlikelihood_loss(
    policy_chosen_logps: Tensor, policy_rejected_token_logps: Tensor, mask: Tensor, *, alpha: float
) -> Tensor:
    """Per-token unlikelihood in nats, one value per pair: bounded below by 0, unlike `unlikelihood_loss`.

    L = -log π(y_w|x) - α·Σ_t log[1 - π(y_l,t|x, y_l,<t)],   the loss of Welleck et al. 2019 (arXiv:1908.04319) for negative
    tokens. Theirs are repeated tokens; here every token of the rejected completion is one. Where π(y_l,t) is 1 to the float
    type's precision, its term is cut and has no gradient.

    Args:
        policy_chosen_logps: log π(y_w|x) in nats, summed over completion tokens. Shape (batch,).
        policy_rejected_token_logps: log π(y_l,t|x, y_l,<t) of every token. Shape (batch, time).
        mask: True on the rejected completion's tokens. Shape (batch, time), bool.
        alpha: Weight of the rejected completion, ≥ 0.
    """
    _check_same_shape(policy_chosen_logps=policy_chosen_logps)
    if not alpha >= 0:
        raise ValueError(f"alpha: expected a number ≥ 0, got {alpha}")
    if mask.ndim != 2 or policy_rejected_token_logps.shape != mask.shape or len(mask) != len(policy_chosen_logps):
        raise ValueError(
            f"policy_rejected_token_logps: expected shape (batch, time) like mask {tuple(mask.shape)} with batch "
            f"{len(policy_chosen_logps)}, got {tuple(policy_rejected_token_logps.shape)}"
        )
    probability_of_others = -torch.expm1(policy_rejected_token_logps.masked_fill(~mask, -1.0))
    smallest = torch.finfo(probability_of_others.dtype).eps
    others = probability_of_others.clamp_min(smallest).log().masked_fill(~mask, 0.0)
    return -policy_chosen_logps - alpha * others.sum(-1)


def implicit_reward_metrics(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    *, beta: float = 1.0,
) -> dict[str, Tensor]:  # fmt: skip
    """What every pairwise method logs, per pair, under the names of the DPO authors' code. All shapes (batch,).

    `rewards/chosen` = β·log[π(y_w|x)/π_ref(y_w|x)] [nats], `rewards/rejected` likewise, `rewards/margins` their difference,
    `rewards/accuracies` = 1 where the margin is positive, `gradient_weight` = σ(-margin), which scales a pair's gradient in DPO
    (Eq. 7's derivative, sec. 4 of the paper): near ½ where the policy is undecided, near 0 where the pair is learned.
    `logps/chosen` and `logps/rejected` [nats].
    """
    with torch.no_grad():
        chosen = beta * (policy_chosen_logps - reference_chosen_logps)
        rejected = beta * (policy_rejected_logps - reference_rejected_logps)
        return {
            "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(), "gradient_weight": torch.sigmoid(rejected - chosen),
            "logps/chosen": policy_chosen_logps.detach(), "logps/rejected": policy_rejected_logps.detach(),
        }  # fmt: skip
