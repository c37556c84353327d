"""Gold reward and KL(π‖π_ref) of a policy's samples: the two axes of the frontier (Fig. 2, left)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from suite.common.errors import UserError
from suite.data.batching import length_batches
from suite.data.parquet import completions_table
from suite.data.preference_data import Completion, Prompt
from suite.interfaces import Policy, RewardFunction
from suite.maths.kl import MAX_SAMPLER_KL, KLOf, check_kl_of, kl_terms, sequence_kl, tempered_log_probs

LOGITS_PER_BATCH, ON_GPU, TOKENS_PER_BATCH = 2**22, 2**25, 256
"""Next-token log-probs at a time: few enough to stay in a processor's cache, and at least of so many tokens."""


def evaluate_reward_kl(
    policy: Policy, reference: Policy, gold_reward: RewardFunction, prompts: Sequence[Prompt], *, num_samples: int,
    max_new_tokens: int, seed: int, temperature: float = 1.0, kl_of: KLOf = "policy",
    on_batch: Callable[[int], Any] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Sample from `policy` and score every completion.

    Args:
        policy, reference: What is evaluated, and what its KL is measured to.
        gold_reward: Of (prompt, completion) texts.
        prompts, num_samples: Held-out prompts, and how many completions are drawn for each.
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
    check_kl_of(temperature, kl_of)
    sampled = policy.sample(
        prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, on_batch=on_batch
    )
    frame = completions_table(sampled)
    completions = [c for some in sampled for c in some]
    frame["reward"], frame["log_odds"] = score(gold_reward, completions)
    return frame.assign(**kl_columns(policy, reference, completions, temperature))


def score(reward: RewardFunction, completions: Sequence[Completion]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and log-odds (NaN for a reward that has none), one per completion; raises UserError if a reward is not finite."""
    texts = [c.prompt.text for c in completions], [c.text for c in completions]
    if hasattr(reward, "log_odds"):  # one pass for both
        odds = np.asarray(reward.log_odds(*texts), dtype=float)
        values = 1 / (1 + np.exp(-odds))
    else:
        values = np.asarray(reward(*texts), dtype=float)
        odds = np.full(len(values), np.nan)
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        worst = completions[bad[0]]
        raise UserError(
            f"the gold reward is {values[bad[0]]} for {len(bad)} of {len(values)} completions, the first of prompt "
            f"{worst.prompt.id!r}: {worst.text[:80]!r}; finite numbers are needed"
        )
    return values, odds


def kl_columns(
    policy: Policy, reference: Policy, completions: Sequence[Completion], temperature: float = 1.0
) -> dict[str, np.ndarray]:
    """`kl_k1`, `kl_exact` (away from temperature 1 of the sampler), `sampler_kl`, `reference_logps`, in nats per completion."""
    kl_of: KLOf = "policy" if temperature == 1 else "sampler"
    columns = {name: np.empty(len(completions)) for name in ("kl_k1", "kl_exact", "sampler_kl", "reference_logps")}
    one = policy.next_token_log_probs(completions[:1])
    rows = max(TOKENS_PER_BATCH, (ON_GPU if one.is_cuda else LOGITS_PER_BATCH) // one.shape[-1])
    for index in length_batches([len(c.ids) for c in completions], lambda longest: rows // longest):
        batch = [completions[i] for i in index]
        log_p, log_q = policy.next_token_log_probs(batch), reference.next_token_log_probs(batch)
        if temperature != 1:
            log_p = tempered_log_probs(log_p, temperature)
        lengths = torch.tensor([len(c.ids) for c in batch])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(log_p.device)
        tokens = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
        tokens[mask] = torch.tensor([i for c in batch for i in c.ids], device=mask.device)
        p, q = (log_probs.gather(-1, tokens[..., None]).squeeze(-1) for log_probs in (log_p, log_q))
        columns["kl_k1"][index] = sequence_kl(p, q, mask, estimator="k1", temperature=temperature, kl_of=kl_of).cpu()
        columns["kl_exact"][index] = sequence_kl(
            log_p, log_q, mask, estimator="exact", temperature=temperature, kl_of=kl_of
        ).cpu()
        columns["reference_logps"][index] = torch.where(mask, q, 0.0).sum(-1).cpu()
        drawn = torch.tensor([c.sampler_log_prob for c in batch], device=mask.device)
        columns["sampler_kl"][index] = kl_terms(drawn, torch.where(mask, p, 0.0).sum(-1), estimator="k3").cpu()
    return columns


def sampler_kl(policy: Policy, completions: Sequence[Completion]) -> float:
    """KL(sampler‖scorer) in nats per completion, k3 estimate: how far completions are from the policy that is scored."""
    drawn = torch.tensor([c.sampler_log_prob for c in completions])
    return float(kl_terms(drawn, policy.log_prob(completions), estimator="k3").mean())


def check_sampler(value: float) -> None:
    """Raises UserError if KL(sampler‖scorer) is above 0.01 nats per completion: those of another policy than is scored."""
    if not np.isfinite(value):
        raise UserError("the completions carry no sampler_log_prob, so it cannot be checked that they come from the policy")
    if not value <= MAX_SAMPLER_KL:
        raise UserError(
            f"the sampler is not the policy that is scored: KL(sampler‖scorer) = {value:.4f} nats per completion, more than "
            f"{MAX_SAMPLER_KL}, although both are in float32; this is a fault of the model's code or of its cache"
        )
