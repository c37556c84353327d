"""Methods that each break one rule, for `test_check_method.py`."""

from dataclasses import dataclass, field, replace

import torch

from suite.maths.losses import dpo_loss, implicit_reward_metrics
from suite.methods.dpo import DPO, pair_log_probs
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.loop import fit
from suite.training.settings import OptimConfig


class WrongSign(DPO):
    def losses(self, logps, config):
        return -super().losses(logps, config).clamp(max=5)


class WrongBeta(DPO):
    """Two thirds of the β it is given: better reward, but not the optimum that was asked for."""

    def losses(self, logps, config):
        return dpo_loss(*logps, beta=config.beta / 1.5)


class NoGain(DPO):
    promise = "improves_reward"

    def losses(self, logps, config):
        return 0 * super().losses(logps, config)


class TrainsTheReference(DPO):
    def train(self, data, reference, config, run):
        def loss_fn(policy, pairs):
            logps = pair_log_probs(policy, pairs)
            return dpo_loss(*logps, beta=config.beta), implicit_reward_metrics(*logps)

        return fit(reference, data.pairs, loss_fn, config.optim, run)


class GlobalSeed(DPO):
    def losses(self, logps, config):
        return super().losses(logps, config) * torch.rand(len(logps[0]))


class ForgetsTheOptimizer(DPO):
    """Resumes with the right weights and step, but a fresh optimizer."""

    def train(self, data, reference, config, run):
        load = run.load_checkpoint

        def without_optimizer():
            if state := load():
                state["optimizer"]["state"] = {}
            return state

        run.load_checkpoint = without_optimizer
        return super().train(data, reference, config, run)


class NoSnapshots(DPO):
    def train(self, data, reference, config, run):
        run.snapshot = lambda policy, step: None
        return super().train(data, reference, config, run)


class MeanLogProbPolicy(CausalLMPolicy):
    def log_prob(self, completions):
        return super().log_prob(completions) / torch.tensor([len(c.ids) for c in completions])


class MeanLogProb(DPO):
    def train(self, data, reference, config, run):
        policy = super().train(data, reference, config, run)
        return MeanLogProbPolicy(policy.model, policy.tokenizer)


class ForgetfulPolicy(CausalLMPolicy):
    def save(self, directory):
        CausalLMPolicy(type(self.model)(self.model.config), self.tokenizer).save(directory)


class FlippedKLPolicy(CausalLMPolicy):
    """Only what the KL axis is made of is wrong."""

    def next_token_log_probs(self, completions):
        return super().next_token_log_probs(completions).flip(-1)


class FlippedKL(DPO):
    def train(self, data, reference, config, run):
        policy = super().train(data, reference, config, run)
        return FlippedKLPolicy(policy.model, policy.tokenizer)


class UnsignedPolicy(CausalLMPolicy):
    """Its completions do not say with what probability they were drawn."""

    def sample(self, *arguments, **keywords):
        return [[replace(c, sampler_log_prob=float("nan")) for c in some] for some in super().sample(*arguments, **keywords)]


class Unsigned(DPO):
    def train(self, data, reference, config, run):
        policy = super().train(data, reference, config, run)
        return UnsignedPolicy(policy.model, policy.tokenizer)


class SameSnapshotTwice(DPO):
    def train(self, data, reference, config, run):
        snapshot, run.snapshot = run.snapshot, lambda policy, step: None
        policy = super().train(data, reference, config, run)
        snapshot(policy, 1)
        snapshot(policy, 2)
        return policy


class FixedSeed(DPO):
    def train(self, data, reference, config, run):
        run.seed = 123
        return super().train(data, reference, config, run)


class SavesSomethingElse(DPO):
    def train(self, data, reference, config, run):
        policy = super().train(data, reference, config, run)
        return ForgetfulPolicy(policy.model, policy.tokenizer)


class Crashes(DPO):
    def losses(self, logps, config):
        raise RuntimeError("the loss\nbroke")


@dataclass
class Loose:
    beta: float = 1.0
    optim: OptimConfig = field(default_factory=OptimConfig)


class ThawedConfig(DPO):
    Config = Loose


class UnknownNeed(DPO):
    needs = frozenset({"pears"})


class OddPromise(DPO):
    promise = "wins"


@dataclass(frozen=True)
class NoBeta:
    optim: OptimConfig = field(default_factory=OptimConfig)


class PromisesWithoutBeta(DPO):
    Config = NoBeta


@dataclass(frozen=True)
class Demanding:
    beta: float
    optim: OptimConfig = field(default_factory=OptimConfig)


class DemandingConfig(DPO):
    Config = Demanding


@dataclass(frozen=True)
class NoOptim:
    beta: float = 1.0


class ConfigWithoutOptim(DPO):
    Config = NoOptim


class NeedsAList(DPO):
    needs = ["pairs"]  # noqa: RUF012


class Exits(DPO):
    def train(self, data, reference, config, run):
        raise SystemExit("bye")


class MeanLoss(DPO):
    """As trainers write it; here the loop takes the mean."""

    def losses(self, logps, config):
        return super().losses(logps, config).mean()


class LossOfSides(DPO):
    """Two numbers per pair."""

    def losses(self, logps, config):
        return torch.stack([super().losses(logps, config)] * 2, dim=-1)


def with_metric(make):
    """A `train` whose loss function returns the metric that `make` makes of the policy's log-probs of chosen completions."""

    def train(self, data, reference, config, run):
        def loss_fn(policy, pairs):
            logps = pair_log_probs(policy, pairs)
            return dpo_loss(*logps, beta=config.beta), {"mine": make(logps[0])}

        return fit(reference.copy(), data.pairs, loss_fn, config.optim, run)

    return train


class MeanMetric(DPO):
    train = with_metric(lambda logps: logps.detach().mean())


class MetricOfNumbers(DPO):
    train = with_metric(lambda logps: float(logps.detach().sum()))


class MetricWithGradient(DPO):
    train = with_metric(lambda logps: logps)


@dataclass(frozen=True)
class LateType:
    beta: float = 1.0
    optim: "OnlyForCheckers" = field(default_factory=OptimConfig)  # noqa: F821 - what a type checker alone imports


class TypeThatIsNotThere(DPO):
    Config = LateType


@dataclass(frozen=True)
class WithATensor:
    beta: float = 1.0
    weights: torch.Tensor | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)


class TensorInConfig(DPO):
    Config = WithATensor


class TwoLines(DPO):
    name = "two\nlines"


class NoName(DPO):
    name = " "


class NumberForAName(DPO):
    name = 3


class NoPolicy(DPO):
    def train(self, data, reference, config, run):
        return "trained"
