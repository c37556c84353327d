"""A method on trial: the exact world, data from it, a Config that suits it, and runs that are killed."""

import contextlib
import random
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.check.exact_world import MAX_NEW_TOKENS, ExactWorld, TableReward, tiny_language_model, word_tokenizer
from suite.engine.store import Run, RunSpec
from suite.interfaces import Policy, TrainingData
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.settings import OptimConfig

BETA = 1.0
LONG, BRIEF = 8000, 400  # pairs
NUM_SNAPSHOTS = 2


class Stopped(BaseException):
    """Stands for the kill of a run: no `except Exception` survives it."""


class QuietRun(Run):
    def progress(self, total: int, unit: str, done: int = 0) -> Any:
        return contextlib.nullcontext(SimpleNamespace(update=lambda n: None))


class KilledRun(QuietRun):
    """Writes a checkpoint as often as it can and dies of the first."""

    checkpoints_to_live = 1

    def checkpoint_due(self) -> bool:
        return True

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        super().save_checkpoint(step, state)
        self.checkpoints_to_live -= 1
        if not self.checkpoints_to_live:
            raise Stopped


class KilledLaterRun(KilledRun):
    checkpoints_to_live = 3


class Trial:
    """A method with all it needs to be tried on the exact world."""

    def __init__(self, method: Any, root: Path) -> None:
        self.method, self.root = method, root
        self.world = ExactWorld()
        self.reference = CausalLMPolicy(tiny_language_model(), word_tokenizer())
        with torch.no_grad():
            self.reference_table = self.world.log_probs(self.reference.model).double()
        self.rewards = self.world.word_rewards()
        self.is_trained = getattr(method, "trained", True) and not method.evaluated_from_pool

    def config(self, size: int = LONG) -> Any:
        """The method's defaults, with β = 1 where it must follow π*, and settings that suit so small a model.

        A method that draws its own samples is shortened by `num_steps` where the others are given less data.
        """
        suitable = {
            "normalise_rewards": False,  # β is per unit of reward here
            "logit_rewards": False,  # rewards are no probabilities here
            "optim": OptimConfig(
                lr=5e-4, batch_size=200, micro_batch_size=200, num_epochs=3, warmup_steps=10, num_snapshots=NUM_SNAPSHOTS
            ),
            **({"beta": BETA} if self.method.promise == "follows_optimum" else {}),
            **({"num_steps": 6} if size == BRIEF else {}),
        }
        fields = self.method.Config.__dataclass_fields__
        return self.method.Config(**{name: value for name, value in suitable.items() if name in fields})

    def data(self, size: int) -> TrainingData:
        """`size` Bradley-Terry pairs, as many texts, half as many rankings: what `needs` names of them."""
        drawn = (self.reference_table, self.rewards, size)
        make: dict[str, Callable[[], Any]] = {
            "pairs": lambda: self.world.sample_pairs(*drawn, seed=0),
            "rankings": lambda: self.world.sample_rankings(*drawn[:2], size // 2, seed=0),
            "texts": lambda: [p.chosen for p in self.world.sample_pairs(*drawn, seed=0)],
            "prompts": lambda: self.world.prompts,
            "reward": lambda: TableReward.of(self.world, self.rewards),
            "gold_reward": lambda: TableReward.of(self.world, self.rewards),
        }
        return TrainingData(**{name: make[name]() for name in self.method.needs if name in make}, max_new_tokens=MAX_NEW_TOKENS)

    def train(self, name: str, size: int, kind: type[Run] = QuietRun, seed: int = 0) -> tuple[Policy, Run]:
        """Train in a run directory called `name`, with other global random states each time: only `run.seed` may matter."""
        for seed_globally in (torch.manual_seed, np.random.seed, random.seed):
            seed_globally(zlib.crc32(f"{name} {kind.__name__}".encode()))
        run = kind(self.root, RunSpec("check", {"name": name, "seed": seed}))
        run.directory.mkdir(parents=True, exist_ok=True)
        return self.method().train(self.data(size), self.reference, self.config(size), run), run

    @cached_property
    def trained(self) -> tuple[Policy, Run]:
        """The one long training."""
        return self.train("long", LONG)

    @cached_property
    def briefly_trained(self) -> Policy:
        return self.train("brief", BRIEF)[0]

    def log_probs(self, policy: Policy) -> Tensor:
        """Log π of every completion, by the policy's own `log_prob`. Shape (prompts, 156), float64."""
        return torch.stack([policy.log_prob(some).double().cpu() for some in self.world.completions])

    def print_of(self, policy: Policy) -> Tensor:
        """What tells two policies apart: log-probabilities, or samples where there are none."""
        if policy.has_log_prob:
            return self.log_probs(policy)
        drawn = policy.sample(self.world.prompts, num_samples=50, max_new_tokens=MAX_NEW_TOKENS, seed=1)
        return torch.tensor([[i, *c.ids, *[-1] * (MAX_NEW_TOKENS - len(c.ids))] for i, s in enumerate(drawn) for c in s])
