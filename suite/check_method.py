"""Does a method keep the contract? Every check runs on the exact world, where the truth is known, in seconds on a CPU.

`suite check-method my_pkg.kto:KTO` prints them; the tests run them for every registered method.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
import tempfile
import traceback
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from suite.data.tasks.exact_world import (
    MAX_NEW_TOKENS,
    ExactWorld,
    TableReward,
    exact_kl,
    expected_reward,
    optimum,
    tiny_language_model,
    word_tokenizer,
)
from suite.interfaces import Policy, Promise, TrainingData
from suite.policies.causal_lm import CausalLMPolicy
from suite.registry import load_method
from suite.runs.run_store import Run, RunSpec
from suite.runs.stages import snapshots
from suite.training.loop import OptimConfig

BETA = 1.0
NUM_SNAPSHOTS = 2
MIN_GAIN = 0.1
"""How much the expected reward must rise, in its standard deviations under π_ref, to count as improved."""
MAX_DISTANCE = 0.15
"""How far from π* a method that follows it may end: KL(π‖π*) as a share of KL(π_ref‖π*)."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    why: str


class _Failed(Exception):
    """A check's finding, in one line."""


class _Stopped(Exception):
    """Stands for the kill of a run."""


class _QuietRun(Run):
    def progress(self, total: int, unit: str, done: int = 0) -> Any:
        return contextlib.nullcontext(SimpleNamespace(update=lambda n: None))


class _KilledRun(_QuietRun):
    """Writes a checkpoint as soon as it can and dies of it."""

    def checkpoint_due(self) -> bool:
        return True

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        super().save_checkpoint(step, state)
        raise _Stopped


class Subject:
    """A method with all it needs to be tried on the exact world."""

    def __init__(self, method: Any, root: Path, seed: int = 0) -> None:
        self.method, self.root, self.seed = method, root, seed
        self.world = ExactWorld()
        self.reference = CausalLMPolicy(tiny_language_model(seed), word_tokenizer())
        with torch.no_grad():
            self.reference_table = self.world.log_probs(self.reference.model).double()
        self.rewards = self.world.word_rewards()

    def config(self) -> Any:
        """The method's defaults, with β = 1 where it must follow π*, and settings that suit so small a model."""
        fields = self.method.Config.__dataclass_fields__
        settings: dict[str, Any] = {"beta": BETA} if self.method.promise == "follows_optimum" else {}
        if "optim" in fields:
            settings["optim"] = OptimConfig(
                lr=5e-4, batch_size=200, micro_batch_size=200, num_epochs=3, warmup_steps=10, num_snapshots=NUM_SNAPSHOTS
            )
        return self.method.Config(**settings)

    def data(self, size: int) -> TrainingData:
        """`size` Bradley-Terry pairs, as many texts, half as many rankings: what `needs` names of them."""
        drawn = (self.reference_table, self.rewards, size)
        make: dict[str, Callable[[], Any]] = {
            "pairs": lambda: self.world.sample_pairs(*drawn, seed=self.seed),
            "rankings": lambda: self.world.sample_rankings(*drawn[:2], size // 2, seed=self.seed),
            "texts": lambda: [p.chosen for p in self.world.sample_pairs(*drawn, seed=self.seed)],
            "prompts": lambda: self.world.prompts,
            "reward": lambda: TableReward.of(self.world, self.rewards),
        }
        return TrainingData(**{name: make[name]() for name in self.method.needs if name in make}, max_new_tokens=MAX_NEW_TOKENS)

    def train(self, name: str, size: int, kind: type[Run] = _QuietRun) -> tuple[Policy, Run]:
        """Train in a run directory called `name`, with other global random states each time: only `run.seed` may matter."""
        for seed_globally in (torch.manual_seed, np.random.seed, random.seed):
            seed_globally(zlib.crc32(f"{name} {kind.__name__}".encode()))
        run = kind(self.root, RunSpec("check", {"name": name, "seed": self.seed}))
        run.directory.mkdir(parents=True, exist_ok=True)
        return self.method().train(self.data(size), self.reference, self.config(), run), run

    @cached_property
    def trained(self) -> tuple[Policy, Run]:
        """The one long training."""
        return self.train("long", 8000)

    @cached_property
    def briefly_trained(self) -> Policy:
        return self.train("brief", 400)[0]

    def log_probs(self, policy: Policy) -> Tensor:
        """Log π of every completion, by the policy's own `log_prob`. Shape (prompts, 156), float64."""
        return torch.stack([policy.log_prob(some).double().cpu() for some in self.world.completions])

    def print_of(self, policy: Policy) -> Tensor:
        """What tells two policies apart: log-probabilities, or samples where there are none."""
        if policy.has_log_prob:
            return self.log_probs(policy)
        drawn = policy.sample(self.world.prompts, num_samples=50, max_new_tokens=MAX_NEW_TOKENS, seed=1)
        return torch.tensor([[i, *c.ids, *[-1] * (MAX_NEW_TOKENS - len(c.ids))] for i, s in enumerate(drawn) for c in s])


def contract(subject: Subject) -> str:
    """Attributes, Config and `needs` are what `suite/interfaces.py` says."""
    method = subject.method
    config_class = method.Config
    if not getattr(getattr(config_class, "__dataclass_params__", None), "frozen", False):
        raise _Failed("Config is no frozen dataclass; write @dataclass(frozen=True)")
    known = {f.name for f in dataclasses.fields(TrainingData)} - {"max_new_tokens"}
    if unknown := set(method.needs) - known:
        raise _Failed(
            f"needs names {', '.join(sorted(unknown))}, which TrainingData does not have; it has {', '.join(sorted(known))}"
        )
    if method.promise not in get_args(Promise):
        raise _Failed(f"promise is {method.promise!r}; expected one of {', '.join(get_args(Promise))}")
    if method.promise == "follows_optimum" and "beta" not in config_class.__dataclass_fields__:
        raise _Failed("it promises follows_optimum but its Config has no beta to follow")
    config = subject.config()
    as_json = TypeAdapter(config_class).dump_json(config)
    if TypeAdapter(config_class).validate_json(as_json) != config:
        raise _Failed("Config does not survive JSON; use numbers, strings, booleans and dataclasses of them")
    return f"needs {', '.join(sorted(method.needs))}"


def training(subject: Subject) -> str:
    """It trains, and returns a policy."""
    policy, _ = subject.trained
    if not isinstance(policy, Policy):
        raise _Failed(f"train returned a {type(policy).__name__}, which is no Policy (suite/interfaces.py)")
    return type(policy).__name__


def kept_snapshots(subject: Subject) -> str:
    """As many snapshots as asked for, the last one being the result."""
    policy, run = subject.trained
    if subject.method.evaluated_from_pool:
        return "none: it is read off the pool of reference samples"
    kept = snapshots(run.directory)
    if not kept or ("optim" in subject.method.Config.__dataclass_fields__ and len(kept) != NUM_SNAPSHOTS):
        raise _Failed(f"{len(kept)} snapshots, {NUM_SNAPSHOTS} were asked for (optim.num_snapshots); call run.snapshot")
    if not torch.allclose(subject.print_of(type(policy).load(kept[-1])), subject.print_of(policy), atol=1e-5):
        raise _Failed("the last snapshot is not the policy that train returned")
    return f"{len(kept)}"


def probabilities(subject: Subject) -> str:
    """Log-probabilities of all completions sum to 1 and belong to the samples."""
    policy, _ = subject.trained
    if not policy.has_log_prob:
        return "it has none"
    table = subject.log_probs(policy)
    totals = table.exp().sum(-1)
    if not torch.allclose(totals, torch.ones_like(totals), atol=1e-4):
        raise _Failed(
            f"probabilities of all completions sum to {totals.tolist()}, not to 1; log_prob must be summed over completion "
            "tokens, EOS included, at temperature 1"
        )
    drawn = policy.sample(subject.world.prompts, num_samples=1000, max_new_tokens=MAX_NEW_TOKENS, seed=0)
    for log_probs, some, prompt in zip(table, drawn, subject.world.prompts, strict=True):
        sampled = policy.log_prob(some).double()
        expected = (log_probs.exp() * log_probs).sum()
        if not abs(sampled.mean() - expected) <= 5 * sampled.std() / len(some) ** 0.5:
            raise _Failed(
                f"{prompt.id}: mean log_prob of the samples is {float(sampled.mean()):.3f}, by enumeration it is "
                f"{float(expected):.3f}; sample and log_prob are not of the same policy"
            )
    return "sum to 1, and the samples are drawn from them"


def promise(subject: Subject) -> str:
    """What the method says of itself is true where the truth is known."""
    policy, _ = subject.trained
    if subject.method.promise == "none":
        return "none made"
    if subject.method.promise == "follows_optimum":
        best, _ = optimum(subject.reference_table, subject.rewards, beta=BETA)
        at_first = float(exact_kl(subject.reference_table, best).mean())
        distance = float(exact_kl(subject.log_probs(policy), best).mean())
        finding = f"KL(π‖π*) = {distance:.3f} nats, from {at_first:.3f} at the reference"
        if not distance <= MAX_DISTANCE * at_first:
            raise _Failed(f"follows_optimum: {finding}; at most {MAX_DISTANCE * at_first:.3f} is allowed")
        return finding
    spread = (expected_reward(subject.reference_table, (subject.rewards - subject.rewards.mean()) ** 2)).mean().sqrt()
    reward_0 = expected_reward(subject.reference_table, subject.rewards).mean()
    if policy.has_log_prob:
        reward_1 = expected_reward(subject.log_probs(policy), subject.rewards).mean()
    else:
        score = TableReward.of(subject.world, subject.rewards)
        drawn = policy.sample(subject.world.prompts, num_samples=500, max_new_tokens=MAX_NEW_TOKENS, seed=0)
        reward_1 = torch.tensor([score([c.prompt.text], [c.text])[0] for some in drawn for c in some]).mean()
    gain = float((reward_1 - reward_0) / spread)
    finding = f"expected reward moved by {gain:+.2f} of its standard deviation"
    if not gain >= MIN_GAIN:
        raise _Failed(f"improves_reward: {finding}; at least +{MIN_GAIN} is asked for")
    return finding


def same_seed(subject: Subject) -> str:
    """Same seed, same policy, whatever the global random states are."""
    first, again = subject.briefly_trained, subject.train("again", 400)[0]
    if not torch.equal(subject.print_of(first), subject.print_of(again)):
        raise _Failed("two runs of one seed differ; draw all randomness from run.seed")
    return "same policy twice"


def save_and_load(subject: Subject) -> str:
    """A saved policy is the same when loaded."""
    policy = subject.briefly_trained
    policy.save(subject.root / "saved")
    loaded = type(policy).load(subject.root / "saved")
    if not torch.allclose(subject.print_of(loaded), subject.print_of(policy), atol=1e-6):
        raise _Failed("the loaded policy differs from the one that was saved")
    return "same policy"


def resume(subject: Subject) -> str:
    """A killed run goes on from its checkpoint and ends with the weights of an uninterrupted one."""
    if subject.method.evaluated_from_pool:
        return "nothing is trained"
    with contextlib.suppress(_Stopped):
        subject.train("killed", 400, _KilledRun)
        return "it writes no checkpoint: a killed run starts again"
    resumed = subject.train("killed", 400)[0]
    if not torch.equal(subject.print_of(resumed), subject.print_of(subject.briefly_trained)):
        raise _Failed(
            "a run that was killed and resumed ends elsewhere; the checkpoint must hold weights, optimizer, step and whatever "
            "else decides the next step"
        )
    return "identical to an uninterrupted run"


def reference_untouched(subject: Subject) -> str:
    """Training leaves the reference as it was."""
    before = copy.deepcopy(subject.reference.model.state_dict())
    subject.train("untouched", 400)
    for name, value in subject.reference.model.state_dict().items():
        if not torch.equal(value, before[name]):
            raise _Failed(f"train changed the reference ({name}); train reference.copy()")
    return "weights unchanged"


CHECKS: tuple[Callable[[Subject], str], ...] = (
    contract, reference_untouched, training, kept_snapshots, probabilities, promise, same_seed, save_and_load, resume,
)  # fmt: skip


def check_method(name: str) -> list[Check]:
    """Run every check on a registered method or "module:Class"; what fails is reported, nothing is raised.

    Raises:
        UserError: There is no such method.
    """
    method = load_method(name)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(method, Path(folder))
        for check in CHECKS:
            try:
                result = Check(check.__name__, True, check(subject))
            except _Failed as finding:
                result = Check(check.__name__, False, str(finding))
            except Exception as error:  # whatever an outside class may raise is a finding, not a crash
                result = Check(check.__name__, False, _where(error))
            results.append(result)
            if check is contract and not result.ok:
                break  # the others would only repeat it
    return results


def _where(error: Exception) -> str:
    """An exception in one line, with the innermost place of it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(last.filename).name}:{last.lineno})"
