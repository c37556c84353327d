"""A made-up world where helpfulness and safety conflict: two reward models and their combination beside one model of all pairs.

On the exact world every completion has a helpfulness and a safety, sums over its words that pull against each other; the second
prompt has a word by which it is flagged. Pairs are labelled for one of the two each, by Bradley-Terry. Rewards are learned from
them by models that are linear in the words, as the truth is, fitted until they no longer change; and each is optimised without
error: π ∝ π_ref·exp(r/β), with β for the KL that is asked for. So what differs is the reward alone, and every expectation is a
finite sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor

from suite.check import exact_world as ew

CONFLICT = -0.8
"""Correlation of the words' safety with their helpfulness."""
SPREAD = 2.0
"""Standard deviation of helpfulness and of safety over completions of the reference, in logits."""
FLAG = "bee"
"""A word of the second prompt alone."""
THRESHOLD = 0.15
"""Safety scores below it count."""
RIDGE = 1e-5
"""Weight of the squares of a model's weights in its loss, so that they are finite."""
BUDGETS = (0.5, 1.0, 2.0)
MIXED = 0.1
"""Share of helpfulness pairs among those of the safety model of the second combination."""
COMBINED, COMBINED_MIXED, POOLED = "combined", f"combined, {MIXED:.0%} mixed", "one model of all pairs"
REWARDS = (COMBINED, COMBINED_MIXED, POOLED, "helpfulness alone", "safety alone")


def truths(world: ew.ExactWorld, reference: Tensor, seed: int) -> dict[str, Tensor]:
    """Helpfulness and safety of every completion, in logits of their Bradley-Terry model: mean 0 and standard deviation
    `SPREAD` over completions of the reference. Shape (prompts, completions) each.
    """
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, len(ew.WORDS)))
    one[ew.EOS] = other[ew.EOS] = 0.0  # the end is no word
    other -= one * (one @ other) / (one @ one)
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    words = {"helpfulness": one, "safety": CONFLICT * one + (1 - CONFLICT**2) ** 0.5 * other}
    found = {}
    for name, values in words.items():
        table = centred(counts_of(world) @ torch.tensor(values), reference)
        found[name] = SPREAD * table / (reference.exp() / len(reference) * table.square()).sum().sqrt()
    return found


def counts_of(world: ew.ExactWorld) -> Tensor:
    """How often every word is in every completion. Shape (prompts, completions, words), float64; the end does not count."""
    words = range(len(ew.WORDS))
    rows = [[[c.ids.count(word) * (word != ew.EOS) for word in words] for c in some] for some in world.completions]
    return torch.tensor(rows, dtype=torch.float64)


def centred(table: Tensor, reference: Tensor) -> Tensor:
    """Less its mean over completions of the reference, of both prompts together."""
    return table - (reference.exp() / len(reference) * table).sum()


def combined(world: ew.ExactWorld, of: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The combination's rule on tables of logits: safety where the prompt is flagged or its score is below `THRESHOLD`, else
    helpfulness; and where safety decides.
    """
    flagged = torch.tensor([[FLAG in prompt.text.split()] for prompt in world.prompts])
    by_safety = flagged | (of["safety"].sigmoid() < THRESHOLD)
    return torch.where(by_safety, of["safety"], of["helpfulness"]), by_safety


def fitted(world: ew.ExactWorld, reference: Tensor, wins: Tensor) -> Tensor:
    """The Bradley-Terry model, linear in the words, of a table of wins (`suite.check.exact_world.win_probabilities`), centred
    on the reference. Shape (prompts, completions).
    """
    counts = counts_of(world)
    gaps = (counts[:, :, None] - counts[:, None]).flatten(0, 2)[keep := (wins.flatten() > 0)].numpy()
    weight = wins.flatten()[keep].numpy() / len(wins)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        z = gaps @ values
        slope = weight / (1 + np.exp(z))
        return float(weight @ np.logaddexp(0, -z) + RIDGE * values @ values), -gaps.T @ slope + 2 * RIDGE * values

    found = minimize(loss, np.zeros(len(ew.WORDS)), jac=True, method="L-BFGS-B")
    return centred(counts @ torch.tensor(found.x), reference)


def learned(world: ew.ExactWorld, reference: Tensor, wins: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, float]]:
    """Every reward of `REWARDS`, and the share of the reference's completions of the prompt without a flag that safety decides
    (0 where nothing is combined).
    """
    helpful, safe = wins["helpfulness"], wins["safety"]
    of = {name: fitted(world, reference, table) for name, table in wins.items()}
    mixed = {**of, "safety": fitted(world, reference, (1 - MIXED) * safe + MIXED * helpful)}
    both = [combined(world, parts) for parts in (of, mixed)]
    shares = [float((reference[0].exp() * by_safety[0]).sum()) for _, by_safety in both]
    pooled = fitted(world, reference, (helpful + safe) / 2)
    tables = [*(table for table, _ in both), pooled, of["helpfulness"], of["safety"]]
    return dict(zip(REWARDS, zip(tables, [*shares, 0.0, 0.0, 0.0], strict=True), strict=True))


def tilted(reference: Tensor, rewards: Tensor, kl: float) -> Tensor:
    """Log π ∝ log π_ref + r/β with the β at which the KL, mean over prompts, is `kl` nats; shape as `reference`.

    Raises:
        ValueError: No β gives so much.
    """

    def of(log_beta: float) -> Tensor:
        return ew.optimum(reference, rewards, beta=float(np.exp(log_beta)))[0]

    return of(brentq(lambda x: float(ew.exact_kl(of(x), reference).mean()) - kl, -8.0, 8.0))


def simulate(seed: int, *, pairs: Sequence[int]) -> list[dict[str, Any]]:
    """One draw of the world: a row per number of pairs of each kind (0: as many as there can be), reward and KL budget.

    `helpfulness`, `safety` and `goal` (the combination's rule on the truth) are expectations in logits, mean over prompts;
    `unsafe` is the probability of a completion whose true safety score is below the threshold; `by_safety` that of `learned`,
    and `truly_below` what it would be with the true scores.
    """
    world = ew.ExactWorld()
    with torch.no_grad():
        reference = world.log_probs(ew.tiny_language_model(0)).double().log_softmax(-1)
    of = truths(world, reference, seed)
    goal, by_safety = combined(world, of)
    worth = {**of, "goal": goal, "unsafe": (of["safety"].sigmoid() < THRESHOLD).double()}
    truly_below = float((reference[0].exp() * by_safety[0]).sum())
    whole = {name: ew.win_probabilities(reference, table) for name, table in of.items()}
    rows = list[dict[str, Any]]()
    for count in (*pairs, 0):
        drawn = {
            name: ew.sample_wins(wins, -(-count // len(wins)), seed=2 * seed + k) if count else wins
            for k, (name, wins) in enumerate(whole.items())
        }
        for name, (rewards, share) in learned(world, reference, drawn).items():
            for kl in BUDGETS:
                table = tilted(reference, rewards, kl)
                means = {what: float(ew.expected_reward(table, values).mean()) for what, values in worth.items()}
                row = {"seed": seed, "pairs": count, "reward": name, "kl": kl, **means}
                rows.append(row | {"by_safety": share, "truly_below": truly_below})
    return rows
