"""The exact world in numbers: KL estimators, DPO's error by number of pairs, and what hard labels do, against enumeration."""

import copy
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from suite.check import exact_world as ew
from suite.data.labelling import Labels
from suite.maths.kl import kl_terms, sequence_kl
from suite.maths.statistics import t_interval
from suite.policies.causal_lm import CausalLMPolicy

SAMPLES = 64
PER_TOKEN: tuple[Literal["k1", "k2", "k3"], ...] = ("k1", "k2", "k3")
PAIRS = (4000, 16_000, 64_000, 256_000)
BETAS = (0.5, 1.0, 2.0)
LABELS: tuple[Labels, ...] = ("bradley_terry", "hard")
STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 3000)


def kl_table(world: ew.ExactWorld, replications: int) -> pd.DataFrame:
    """Bias and spread of the mean of 64 samples, per estimator, for policies near to and far from the reference."""
    every = world.completions[0]
    reference = CausalLMPolicy(ew.tiny_language_model(0), ew.word_tokenizer())
    rows = []
    for name, seed, share in (("near", 1, 0.1), ("middle", 1, 0.5), ("far", 2, 1.0)):
        policy = CausalLMPolicy(ew.tiny_language_model(0), ew.word_tokenizer())
        with torch.no_grad():  # a share of the way, in weights, to another random model
            for weight, towards in zip(policy.model.parameters(), ew.tiny_language_model(seed).parameters(), strict=True):
                weight.lerp_(towards, share)
            table, other = (world.log_probs(p.model)[0].double().log_softmax(-1) for p in (policy, reference))
            (ours, mask), (theirs, _) = (p.completion_token_log_probs(every) for p in (policy, reference))
            whole = [p.next_token_log_probs(every).double() for p in (policy, reference)]
        ours, theirs = ours.double(), theirs.double()
        values: dict[str, Tensor] = {e: sequence_kl(ours, theirs, mask, estimator=e) for e in PER_TOKEN}
        values["k3 of summed log-probs"] = kl_terms(ours.sum(-1), theirs.sum(-1), estimator="k3")
        values["exact per step"] = sequence_kl(whole[0], whole[1], mask, estimator="exact")
        truth = float(ew.exact_kl(table[None], other[None]))
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(table.exp(), SAMPLES * replications, replacement=True, generator=generator)
        for estimator, value in values.items():
            means = value[drawn].view(replications, SAMPLES).mean(1)
            mean, low, high, n = t_interval(means)
            rows.append(
                {"policy": name, "kl": truth, "estimator": estimator, "bias": mean - truth, "bias_low": low - truth,
                 "bias_high": high - truth, "sd": float(means.std()),
                 "negative": float((value[drawn] < -1e-6).double().mean()), "n": n}
            )  # fmt: skip
    return pd.DataFrame(rows)


def error_table(world: ew.ExactWorld, seeds: int) -> pd.DataFrame:
    """KL(π‖π*) of DPO trained to the end on n sampled Bradley-Terry pairs per prompt, β = 1."""
    model, reference, rewards = _start(world)
    best, _ = ew.optimum(reference, rewards, beta=1.0)
    wins = ew.win_probabilities(reference, rewards)
    rows = []
    for pairs, seed in tqdm([(n, s) for n in PAIRS for s in range(seeds)], desc="sampled pairs"):
        found = ew.sample_wins(wins, pairs, seed=seed)
        policy = ew.fit_exactly(
            world, copy.deepcopy(model), lambda p, w=found: ew.mean_dpo_loss(p, reference, w, beta=1.0), steps=1000, lr=5e-3
        )
        one_sided = ((found.sum(1) == 0) | (found.sum(2) == 0)).sum()  # completions that never lost or never won
        distance = float(ew.exact_kl(policy, best.double()).mean())
        rows.append({"pairs": pairs, "seed": seed, "kl_to_optimum": distance, "one_sided": int(one_sided)})
    return pd.DataFrame(rows)


def labels_table(world: ew.ExactWorld) -> pd.DataFrame:
    """KL(π‖π_ref) after more and more steps of expected DPO, with Bradley-Terry and with hard labels."""
    (model, reference, rewards), rows = _start(world), []
    for beta, labels in tqdm([(b, k) for b in BETAS for k in LABELS], desc="labels"):
        wins = ew.win_probabilities(reference, rewards, labels=labels)
        intended = float(ew.exact_kl(ew.optimum(reference, rewards, beta=beta)[0], reference).mean())
        trained = copy.deepcopy(model)
        optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
        for step in range(1, STEPS[-1] + 1):
            optimizer.zero_grad()
            policy = world.log_probs(trained)
            ew.mean_dpo_loss(policy, reference, wins, beta=beta).backward()
            optimizer.step()
            if step in STEPS:
                kl = float(ew.exact_kl(policy.detach(), reference).mean())
                rows.append({"labels": labels, "beta": beta, "step": step, "kl": kl, "kl_of_optimum": intended})
    return pd.DataFrame(rows)


def _start(world: ew.ExactWorld) -> tuple[Any, Tensor, Tensor]:
    """A model, its log-probs as the reference's, and rewards."""
    model = ew.tiny_language_model(0)
    with torch.no_grad():
        return model, world.log_probs(model), world.random_rewards(1).float()
