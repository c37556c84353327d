"""Losses of the offline methods: pure functions of sequence log-probabilities, one value per example, never reduced.

Log-probabilities are in nats and summed over completion tokens; the sum is taken in `sequence_log_probs`, not here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def _check_same_shape(**tensors: Tensor) -> None:
    names, shapes = list(tensors), [tuple(t.shape) for t in tensors.values()]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0] or len(shape) != 1:
            raise ValueError(f"{name}: expected shape (batch,) like {names[0]} {shapes[0]}, got {shape}")


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Direct Preference Optimization loss, one value per pair.

    L = -log σ(β·h),   h = log[π(y_w|x)/π_ref(y_w|x)] - log[π(y_l|x)/π_ref(y_l|x)]
    Eq. 7 of Rafailov et al. 2023 (arXiv:2305.18290).

    Args:
        policy_chosen_logps: log π(y_w|x) in nats, summed over completion tokens. Shape (batch,). The other three likewise.
        policy_rejected_logps: log π(y_l|x).
        reference_chosen_logps: log π_ref(y_w|x).
        reference_rejected_logps: log π_ref(y_l|x).
        beta: Weight of the KL constraint, > 0. Larger keeps the policy closer to the reference.

    Returns:
        Loss in nats, shape (batch,); log 2 when policy equals reference. Not reduced: the caller averages.

    Raises:
        ValueError: Shapes differ or `beta` ≤ 0; the message names the argument.
    """
    _check_same_shape(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    if not beta > 0:
        raise ValueError(f"beta: expected a number > 0, got {beta}")
    chosen_log_ratios = policy_chosen_logps - reference_chosen_logps
    rejected_log_ratios = policy_rejected_logps - reference_rejected_logps
    return -functional.logsigmoid(beta * (chosen_log_ratios - rejected_log_ratios))


def nll_loss(policy_logps: Tensor) -> Tensor:
    """Negative log-likelihood of whole completions, L = -log π(y|x) (SFT, Preferred-FT), in nats. Shape (batch,) in and out."""
    _check_same_shape(policy_logps=policy_logps)
    return -policy_logps


def unlikelihood_loss(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, *, alpha: float) -> Tensor:
    """The DPO paper's unlikelihood baseline, one value per pair.

    L = -log π(y_w|x) + α·log π(y_l|x),   sec. 6 of Rafailov et al. 2023 (arXiv:2305.18290)

    It is unbounded below: log π(y_l|x) → -∞ lowers it without end, which is why the baseline degenerates for large α or long
    training (the paper's Table 3). The bounded per-token form of Welleck et al. 2019 (arXiv:1908.04319), -log(1 - p), is
    another loss.

    Args:
        policy_chosen_logps: log π(y_w|x) in nats, summed over completion tokens. Shape (batch,).
        policy_rejected_logps: log π(y_l|x), likewise.
        alpha: Weight of the rejected completion, in [0, 1]. 0 is Preferred-FT.

    Returns:
        Loss in nats, shape (batch,). Not reduced.

    Raises:
        ValueError: Shapes differ or `alpha` is outside [0, 1]; the message names the argument.
    """
    _check_same_shape(policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number in [0, 1], got {alpha}")
    return -policy_chosen_logps + alpha * policy_rejected_logps


def implicit_reward_metrics(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float = 1.0,
) -> dict[str, Tensor]:
    """What every pairwise method logs, per pair, under the names of the DPO authors' code. All shapes (batch,).

    `rewards/chosen` = β·log[π(y_w|x)/π_ref(y_w|x)] [nats], `rewards/rejected` likewise, `rewards/margins` their difference,
    `rewards/accuracies` = 1 where the margin is positive, `logps/chosen` and `logps/rejected` [nats].
    """
    with torch.no_grad():
        chosen = beta * (policy_chosen_logps - reference_chosen_logps)
        rejected = beta * (policy_rejected_logps - reference_rejected_logps)
        return {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen": policy_chosen_logps.detach(),
            "logps/rejected": policy_rejected_logps.detach(),
        }
