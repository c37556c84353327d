"""Mean gold reward and KL(π‖π_ref) of a policy: the two axes of the frontier (Fig. 2, left)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from suite.data.preference_data import Completion, PreferencePair, Prompt
from suite.data.tables import completions_table
from suite.errors import UserError
from suite.interfaces import Policy, RewardFunction
from suite.maths.kl import Decoding, KLOf, check_kl_of, decoding_log_probs, kl_terms, sequence_kl
from suite.maths.losses import dpo_loss
from suite.rewards.text_rewards import ClassifierReward

LOGITS_PER_BATCH = 2**24
MAX_SAMPLER_KL = 0.01
STEP_0_TOLERANCE = 1e-4
STORED_TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0}
"""Nats per completion of 32 tokens or fewer; of a longer one in proportion to its length."""


def evaluate_reward_kl(
    policy: Policy,
    reference: Policy,
    gold_reward: RewardFunction,
    prompts: Sequence[Prompt],
    *,
    num_samples: int,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    kl_of: KLOf = "policy",
    on_batch: Callable[[int], Any] | None = None,
) -> pd.DataFrame:
    """Sample from `policy` and score every completion.

    Args:
        policy: What is evaluated.
        reference: What its KL is measured to.
        gold_reward: Of (prompt, completion) texts.
        prompts: Held-out prompts.
        num_samples: Completions per prompt.
        max_new_tokens: Length limit, EOS included.
        seed: Of the samples.
        temperature: Of the sampler. Samples at any other than 1 are not samples of π: then `kl_of` must be "sampler".
        kl_of: "policy" for KL(π‖π_ref), "sampler" for KL(π at `temperature` ‖ π_ref).
        on_batch: Called with the number of completions just drawn.

    Returns:
        One row per completion: the columns of `completions_table`, `reward`, `log_odds` (where the reward knows them),
        `kl_k1` = log π(y|x) - log π_ref(y|x) and `kl_exact` = full-vocabulary KL of each step summed along y, both in nats per
        completion, `sampler_kl` = k3 estimate of KL(sampler‖scorer), and `reference_logps` = log π_ref(y|x). Intervals must
        resample prompts, not rows.

    Raises:
        ValueError: `temperature` is not 1 and `kl_of` is "policy".
    """
    decoding = Decoding(temperature=temperature)
    check_kl_of(decoding, kl_of)
    sampled = policy.sample(
        prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, on_batch=on_batch
    )
    frame = completions_table(sampled)
    completions = [c for some in sampled for c in some]
    frame["reward"], frame["log_odds"] = score(gold_reward, completions)
    columns = kl_columns(policy, reference, completions, decoding if kl_of == "sampler" else None)
    return frame.assign(**columns)


def score(reward: RewardFunction, completions: Sequence[Completion]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and log-odds (NaN for a reward that has none), one per completion."""
    texts = [c.prompt.text for c in completions], [c.text for c in completions]
    if isinstance(reward, ClassifierReward):  # one pass for both
        odds = reward.log_odds(*texts)
        return ClassifierReward.probability(odds), odds
    values = np.asarray(reward(*texts), dtype=float)
    return values, np.full(len(values), np.nan)


def kl_columns(
    policy: Policy, reference: Policy, completions: Sequence[Completion], decoding: Decoding | None = None
) -> dict[str, np.ndarray]:
    """Per completion, nats: `kl_k1`, `kl_exact`, `sampler_kl`, `reference_logps`. Of π, or of what `decoding` makes of it."""
    kl_of: KLOf = "sampler" if decoding else "policy"
    order = sorted(range(len(completions)), key=lambda i: len(completions[i].ids))
    columns = {name: np.empty(len(completions)) for name in ("kl_k1", "kl_exact", "sampler_kl", "reference_logps")}
    vocabulary = 0
    while order:
        longest = len(completions[order[-1]].ids) + len(completions[order[-1]].prompt.ids)
        size = max(1, LOGITS_PER_BATCH // (longest * vocabulary)) if vocabulary else 8
        index, order = order[-size:], order[:-size]
        batch = [completions[i] for i in index]
        policy_log_probs, reference_log_probs = policy.next_token_log_probs(batch), reference.next_token_log_probs(batch)
        if decoding:
            policy_log_probs = decoding_log_probs(policy_log_probs, decoding)
        vocabulary = policy_log_probs.shape[-1]
        lengths = torch.tensor([len(c.ids) for c in batch])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(policy_log_probs.device)
        tokens = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
        tokens[mask] = torch.tensor([i for c in batch for i in c.ids], device=mask.device)
        logps = [log_probs.gather(-1, tokens[..., None]).squeeze(-1) for log_probs in (policy_log_probs, reference_log_probs)]
        columns["kl_k1"][index] = sequence_kl(logps[0], logps[1], mask, estimator="k1", decoding=decoding, kl_of=kl_of).cpu()
        columns["kl_exact"][index] = sequence_kl(
            policy_log_probs, reference_log_probs, mask, estimator="exact", decoding=decoding, kl_of=kl_of
        ).cpu()
        columns["reference_logps"][index] = torch.where(mask, logps[1], 0.0).sum(-1).cpu()
        drawn = torch.tensor([c.sampler_log_prob for c in batch], device=mask.device)
        columns["sampler_kl"][index] = kl_terms(drawn, torch.where(mask, logps[0], 0.0).sum(-1), estimator="k3").cpu()
    return columns


def sampler_kl(policy: Policy, completions: Sequence[Completion]) -> float:
    """KL(sampler‖scorer) in nats per completion, k3 estimate: how far completions are from the policy that is scored."""
    drawn = torch.tensor([c.sampler_log_prob for c in completions])
    return float(kl_terms(drawn, policy.log_prob(completions), estimator="k3").mean())


def check_sampler(value: float) -> None:
    """Refuse completions that do not come from the policy that is scored.

    Raises:
        UserError: KL(sampler‖scorer) is above 0.01 nats per completion.
    """
    if not np.isfinite(value):
        raise UserError("the completions carry no sampler_log_prob, so it cannot be checked that they come from the policy")
    if not value <= MAX_SAMPLER_KL:
        raise UserError(
            f"the sampler is not the policy that is scored: KL(sampler‖scorer) = {value:.4f} nats per completion, more than "
            f"{MAX_SAMPLER_KL}, although both are in float32; this is a fault of the model's code or of its cache"
        )


def check_step_0(
    policy: Policy, reference: Policy, pairs: Sequence[PreferencePair], *, stored_in: str, beta: float = 0.1
) -> None:
    """Before training, in fp32: KL(π‖π_ref) = 0 and DPO loss = log 2, each to 1e-4, on at most 16 pairs.

    The reference log-probs stored with the pairs must agree with the reference: to 1e-3 nats per completion if they were
    computed in `stored_in` = "float32", to 1 nat if in bf16 arithmetic (a wrong reference is off by far more); of completions
    of more than 32 tokens in proportion to their length.

    Raises:
        UserError: They do not: dropout is on, padding or dtype differ, or the reference is not the policy's origin.
    """
    chosen, rejected = [p.chosen for p in pairs[:16]], [p.rejected for p in pairs[:16]]
    exact = kl_columns(policy, reference, chosen)["kl_exact"]
    sides = [p.log_prob(side) for p in (policy, reference) for side in (chosen, rejected)]
    loss = dpo_loss(*sides, beta=beta)
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
