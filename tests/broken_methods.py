"""Methods that each break one rule, for `test_check_method.py`."""

from dataclasses import dataclass, field

import torch

from suite.maths.losses import dpo_loss, implicit_reward_metrics
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.dpo import DPO, pair_log_probs
from suite.training.loop import OptimConfig, fit


class WrongSign(DPO):
    def losses(self, logps, pairs, config):
        return -super().losses(logps, pairs, config).clamp(max=5)


class WrongBeta(DPO):
    """Half the β it is given: better reward, but not the optimum that was asked for."""

    def losses(self, logps, pairs, config):
        return dpo_loss(*logps, beta=config.beta / 2)


class NoGain(DPO):
    promise = "improves_reward"

    def losses(self, logps, pairs, config):
        return 0 * super().losses(logps, pairs, config)


class TrainsTheReference(DPO):
    def train(self, data, reference, config, run):
        def loss_fn(policy, pairs):
            logps = pair_log_probs(policy, pairs)
            return dpo_loss(*logps, beta=config.beta), implicit_reward_metrics(*logps)

        return fit(reference, data.pairs, loss_fn, config.optim, run)


class GlobalSeed(DPO):
    def losses(self, logps, pairs, config):
        return super().losses(logps, pairs, config) * torch.rand(len(pairs))


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


class SavesSomethingElse(DPO):
    def train(self, data, reference, config, run):
        policy = super().train(data, reference, config, run)
        return ForgetfulPolicy(policy.model, policy.tokenizer)


class Crashes(DPO):
    def losses(self, logps, pairs, config):
        raise RuntimeError("the loss\nbroke")


@dataclass
class Loose:
    beta: float = 1.0


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


class NoPolicy(DPO):
    def train(self, data, reference, config, run):
        return "trained"
