"""Before training: is the policy the reference, and are the pairs the reference's?"""

from collections.abc import Sequence

import numpy as np
import torch

from suite.common.errors import UserError
from suite.data.preference_data import PreferencePair
from suite.evaluation.reward_kl import kl_columns
from suite.interfaces import Policy
from suite.maths.losses import dpo_loss

STEP_0_TOLERANCE = 1e-4
STORED_TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0}
"""Nats per completion of 32 tokens or fewer; of a longer one in proportion to its length."""


def check_step_0(policy: Policy, reference: Policy, pairs: Sequence[PreferencePair], *, stored_in: str) -> None:
    """Before training, in fp32: KL(π‖π_ref) = 0 and DPO loss = log 2, each to 1e-4, on at most 16 pairs.

    The reference log-probs stored with the pairs must agree with the reference: to 1e-3 nats per completion if they were
    computed in `stored_in` = "float32", to 1 nat if in bf16 arithmetic (a wrong reference is off by far more); of completions
    of more than 32 tokens in proportion to their length. Raises UserError if not: dropout is on, padding or dtype differ, or
    the reference is not the policy's origin.
    """
    chosen, rejected = [p.chosen for p in pairs[:16]], [p.rejected for p in pairs[:16]]
    exact = kl_columns(policy, reference, chosen)["kl_exact"]
    sides = [p.log_prob(side) for p in (policy, reference) for side in (chosen, rejected)]
    loss = dpo_loss(*sides, beta=0.1)  # log 2 at any β
    stored = torch.tensor([[p.reference_chosen_logps, p.reference_rejected_logps] for p in pairs[:16]])
    drift = float((torch.stack(sides[2:], dim=1) - stored).abs().max())
    longest = max(len(completion.ids) for completion in (*chosen, *rejected))
    if not drift <= STORED_TOLERANCE[stored_in] * max(1.0, longest / 32):
        raise UserError(
            f"self-test at step 0 failed: log π_ref stored with the pairs is off by {drift:.2f} nats; the pairs were made for "
            f"another reference"
        )
    worst_kl, worst_loss = float(np.abs(exact).max()), float((loss - np.log(2)).abs().max())
    if not (worst_kl <= STEP_0_TOLERANCE and worst_loss <= STEP_0_TOLERANCE):
        raise UserError(
            f"self-test at step 0 failed: KL(π‖π_ref) = {worst_kl:.2e} (expected 0), |DPO loss - log 2| = {worst_loss:.2e}; "
            f"is dropout on, is one of the models in another precision, or is the policy not a copy of the reference?"
        )
