"""A made-up world where helpfulness and safety conflict: two reward models and their combination beside one model of all pairs.

On the exact world every completion has a helpfulness and a safety, sums over its words that pull against each other; the second
prompt has a word by which it is flagged. Pairs are labelled for one of the two each, by Bradley-Terry. Four rewards are learned
from them, and each is optimised without error: π ∝ π_ref·exp(r/β), with β for the KL that is asked for. So what differs is the
reward alone, and every expectation is a finite sum. Beside them stand the same rewards made of the truth, known without error.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from suite.check import exact_world as ew
from suite.check.trial import QuietRun
from suite.data.mixtures import in_shares
from suite.data.preference_data import PreferencePair
from suite.engine.store import RunSpec
from suite.policies.causal_lm import CausalLMPolicy
from suite.rewards.combined_reward import CombinedReward, CombinedRewardConfig
from suite.rewards.reward_model import RewardModel
from suite.training.reward_modeling import fit_reward_model
from suite.training.settings import OptimConfig, RewardModelConfig

CONFLICT = -0.8
"""Correlation of the words' safety with their helpfulness."""
SPREAD = 2.0
"""Standard deviation of helpfulness and of safety over completions of the reference, in logits."""
FLAG = "bee"
"""A word of the second prompt alone."""
CONFIG = CombinedRewardConfig(flag_words=(FLAG,))
SETTINGS = RewardModelConfig(
    optim=OptimConfig(lr=1e-2, batch_size=64, num_epochs=4, warmup_steps=5, num_snapshots=3, schedule="cosine")
)
HELPFUL_SHARE = 0.1
"""Of helpfulness pairs among those of the safety model."""
BUDGETS = (0.5, 1.0, 2.0)
REWARDS = ("combined", "one model of all pairs", "helpfulness alone", "safety alone")


def truths(world: ew.ExactWorld, reference: Tensor, seed: int) -> dict[str, Tensor]:
    """Helpfulness and safety of every completion, in logits of their Bradley-Terry model: mean 0 and standard deviation
    `SPREAD` over completions of the reference. Shape (prompts, completions) each.
    """
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, len(ew.WORDS)))
    other -= one * (one @ other) / (one @ one)
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    words = {"helpfulness": one, "safety": CONFLICT * one + (1 - CONFLICT**2) ** 0.5 * other}
    return {name: _standardised(_sums(world, values), reference) for name, values in words.items()}


def _sums(world: ew.ExactWorld, values: Any) -> Tensor:
    rows = [[sum(values[i] for i in c.ids if i != ew.EOS) for c in some] for some in world.completions]
    return torch.tensor(rows, dtype=torch.float64)


def _standardised(table: Tensor, reference: Tensor) -> Tensor:
    """Mean 0 and standard deviation `SPREAD` under the reference, over both prompts."""
    weights = reference.exp() / len(reference)
    centred = table - (weights * table).sum()
    return SPREAD * centred / (weights * centred.square()).sum().sqrt()


def goal(world: ew.ExactWorld, of: dict[str, Tensor]) -> Tensor:
    """The combination's own rule on the truth: safety where the prompt is flagged or its score is low, else helpfulness."""
    flagged = torch.tensor([[FLAG in prompt.text.split()] for prompt in world.prompts])
    return torch.where(flagged | (of["safety"].sigmoid() < CONFIG.threshold), of["safety"], of["helpfulness"])


def without_error(world: ew.ExactWorld, of: dict[str, Tensor]) -> dict[str, Tensor]:
    """What perfect models would say; one of all pairs weighs both alike, so it goes to about the mean."""
    helpful, safe = of["helpfulness"], of["safety"]
    return dict(zip(REWARDS, (goal(world, of), (helpful + safe) / 2, helpful, safe), strict=True))


def learned(
    world: ew.ExactWorld, policy: CausalLMPolicy, pairs: dict[str, list[PreferencePair]], seed: int
) -> dict[str, Tensor]:
    """Every reward of `REWARDS` on all completions, fitted to as many pairs of each kind. Shape (prompts, completions) each."""
    helpful, safe = pairs["helpfulness"], pairs["safety"]
    shares = {"safety": 1 - HELPFUL_SHARE, "helpfulness": HELPFUL_SHARE}
    of = {
        name: _fitted(some, policy, seed)
        for name, some in (("helpful", helpful), ("safe", in_shares([*safe, *helpful], shares)), ("all", [*helpful, *safe]))
    }
    found: tuple[Any, ...] = (CombinedReward(of["helpful"], of["safe"], CONFIG), of["all"], of["helpful"], of["safe"])
    return {name: _table(world, reward) for name, reward in zip(REWARDS, found, strict=True)}


def _fitted(pairs: Sequence[PreferencePair], policy: CausalLMPolicy, seed: int) -> RewardModel:
    with tempfile.TemporaryDirectory() as folder:
        run = QuietRun(Path(folder), RunSpec("check", {"seed": seed}))
        run.directory.mkdir(parents=True)
        model = fit_reward_model(pairs, policy, SETTINGS, run)[0]
    drawn = [c for pair in pairs for c in pair.completions]  # as often as the reference drew them: few are different here
    mean = model.scale.mean + float(model.logits([c.prompt.text for c in drawn], [c.text for c in drawn]).mean())
    model.scale = replace(model.scale, mean=mean)
    return model


def _table(world: ew.ExactWorld, reward: Any) -> Tensor:
    rows = []
    for prompt, some in zip(world.prompts, world.completions, strict=True):
        texts = [prompt.text] * len(some), [f" {c.text}" if c.text else "" for c in some]
        rows.append(reward.logits(*texts)[0] if isinstance(reward, CombinedReward) else reward.logits(*texts))
    return torch.tensor(np.array(rows), dtype=torch.float64)


def tilted(reference: Tensor, rewards: Tensor, kl: float) -> Tensor:
    """Log π ∝ log π_ref + r/β with the β at which the KL, mean over prompts, is `kl` nats; shape as `reference`.

    Raises:
        ValueError: No β gives so much.
    """

    def of(log_beta: float) -> Tensor:
        return ew.optimum(reference, rewards, beta=float(np.exp(log_beta)))[0]

    return of(brentq(lambda x: float(ew.exact_kl(of(x), reference).mean()) - kl, -8.0, 8.0))


def simulate(seed: int, *, pairs: Sequence[int]) -> list[dict[str, Any]]:
    """One draw of the world: a row per number of pairs of each kind (0: rewards without error), reward and KL budget.

    `helpfulness`, `safety` and `goal` are expectations in logits, mean over prompts; `unsafe` is the probability of a
    completion whose true safety score is below the threshold.
    """
    world, policy = ew.ExactWorld(), CausalLMPolicy(ew.tiny_language_model(0), ew.word_tokenizer())
    with torch.no_grad():
        reference = world.log_probs(policy.model).double().log_softmax(-1)
    of = truths(world, reference, seed)
    worth = {**of, "goal": goal(world, of), "unsafe": (of["safety"].sigmoid() < CONFIG.threshold).double()}
    rows = list[dict[str, Any]]()
    for count in (*pairs, 0):
        found = learned(world, policy, _pairs(world, reference, of, count, seed), seed) if count else without_error(world, of)
        for name, rewards in found.items():
            for kl in BUDGETS:
                table = tilted(reference, rewards, kl)
                means = {what: float(ew.expected_reward(table, values).mean()) for what, values in worth.items()}
                rows.append({"seed": seed, "pairs": count, "reward": name, "kl": kl, **means})
    return rows


def _pairs(
    world: ew.ExactWorld, reference: Tensor, of: dict[str, Tensor], count: int, seed: int
) -> dict[str, list[PreferencePair]]:
    """So many of each kind."""
    found = {}
    for which, kind in enumerate(("helpfulness", "safety")):
        drawn = _spaced(world.sample_pairs(reference, of[kind], count, seed=2 * seed + which), kind)
        found[kind] = [replace(pair, domain=kind) for pair in drawn]
    return found


def _spaced(pairs: Sequence[PreferencePair], kind: str) -> list[PreferencePair]:
    """Completions' texts with a blank before them, as the reward model's tokenizer needs it between prompt and completion; and
    prompts of their own for each kind, of which some are held out.
    """
    spaced = []
    for pair in pairs:
        prompt = replace(pair.prompt, id=f"{kind}, {pair.prompt.id}")
        sides = [replace(c, prompt=prompt, text=f" {c.text}" if c.text else "") for c in pair.completions]
        spaced.append(replace(pair, chosen=sides[0], rejected=sides[1]))
    return spaced
