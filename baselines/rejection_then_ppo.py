"""Rejection sampling, then PPO: the second starts from the policy of the first and is still held to the reference."""

from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from baselines.ppo import PPO, PPOConfig
from baselines.ppo_rollout import RewardScale, models_in
from baselines.rejection_sampling import RejectionSampling, RejectionSamplingConfig
from suite.interfaces import Policy, Promise, RewardFunction, Run, TrainablePolicy, TrainingData
from suite.training.settings import OptimConfig, snapshot_steps

REJECTION = "rejection sampling"


@dataclass(frozen=True)
class RejectionSamplingPPOConfig:
    """Settings of both parts; the defaults were tried, not searched, on the embedded models.

    `optim` has PPO's learning rate. What is not named here of PPO is as in `PPOConfig`.
    """

    n: int = 8
    """Samples of which rejection sampling keeps the best."""
    rejection_share: float = 0.5
    """Share of the steps, and so of the samples, that are rejection sampling's; at least one step of each part is made."""
    rejection_lr: float = 1e-5
    """Learning rate of rejection sampling."""
    beta: float = 0.1
    """Weight of PPO's KL penalty, per standard deviation of the reward on the reference."""
    num_steps: int = 32
    """Steps of both parts together."""
    samples_per_step: int = 128
    """Completions that a step draws."""
    epochs_per_step: int = 2
    """Passes over a rollout, and over the kept completions of a step."""
    minibatch_size: int = 64
    """Completions per optimizer step."""
    value_lr: float = 1e-3
    """Learning rate of PPO's value head."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=3e-5))

    def __post_init__(self) -> None:
        if not 0 < self.rejection_share < 1:
            raise ValueError(f"rejection_share {self.rejection_share}: expected a share between 0 and 1")
        if self.num_steps < 2:
            raise ValueError(f"num_steps {self.num_steps}: expected 2 or more, one for each part")
        self.parts()

    def parts(self) -> tuple[RejectionSamplingConfig, PPOConfig]:
        """The settings of each part. Each would keep its policy after every step: which of them stay, `_Part` knows."""
        first = min(max(1, round(self.rejection_share * self.num_steps)), self.num_steps - 1)
        last = self.num_steps - first
        sizes: dict[str, Any] = {
            "samples_per_step": self.samples_per_step, "epochs_per_step": self.epochs_per_step,
            "minibatch_size": self.minibatch_size,
        }  # fmt: skip
        of_rejection = replace(self.optim, lr=self.rejection_lr, num_snapshots=first)
        of_ppo = replace(self.optim, num_snapshots=last)
        return (
            RejectionSamplingConfig(n=self.n, num_steps=first, optim=of_rejection, **sizes),
            PPOConfig(beta=self.beta, num_steps=last, value_lr=self.value_lr, optim=of_ppo, **sizes),
        )


class RejectionSamplingPPO:
    """Rejection sampling, and PPO on top of its policy (sec. 3.2.3 of Touvron et al. 2023, arXiv:2307.09288).

    One run with as many samples and kept policies as either method alone. The reference of PPO's KL penalty stays π_ref, and
    its rewards are in standard deviations on π_ref as in `PPO`: the scale is that of rejection sampling's first step, whose
    samples are the reference's own, so that β means the same and no sample is drawn for it. PPO begins with a value head of
    zero. Logs what the part at hand logs, by the step of the whole run.
    """

    name: ClassVar[str] = "Rejection sampling, then PPO"
    Config: ClassVar[type] = RejectionSamplingPPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    promise: ClassVar[Promise] = "improves_reward"
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: TrainablePolicy, config: RejectionSamplingPPOConfig, run: Run) -> Policy:
        """Both loops, one after the other; a run that was stopped goes on in the part where it was.

        Raises:
            NonFiniteLoss: A reward, a loss or a gradient is NaN or infinite; names the part's step.
            KLExplosion: The mean sequence KL of a rollout exceeds `PPOConfig.max_kl`; names PPO's step.
        """
        if data.reward is None:
            raise ValueError("rejection sampling, then PPO needs prompts, a reward and max_new_tokens")
        found = run.load_checkpoint() or {"part": REJECTION, "scale": (), "state": None}
        scale, state = RewardScale(*found["scale"]), found["state"]
        reward = _SettingTheScale(data.reward, scale)
        first, second = config.parts()
        kept = set(snapshot_steps(config.num_steps, config.optim.num_snapshots))

        def part(name: str, after: int) -> _Part:
            return _Part(run, name, after, config.num_steps, kept, scale, state if found["part"] == name else None)

        start = reference.copy()
        if found["part"] == REJECTION:
            start = RejectionSampling().train(replace(data, reward=reward), reference, first, part(REJECTION, 0))
        of_ppo = part("PPO", first.num_steps)
        return PPO().train(data, reference, second, of_ppo, start=start, scale=RewardScale(*scale.state))


class _SettingTheScale:
    """A reward whose first scores, the reference's, set a scale."""

    def __init__(self, reward: RewardFunction, scale: RewardScale) -> None:
        self.reward, self.scale, self.readers = reward, scale, models_in(reward)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float]:
        scores = self.reward(prompts, completions)
        self.scale.normalise(torch.tensor(np.asarray(scores), dtype=torch.float64))
        return scores


class _Part:
    """A run as one of its parts sees it: steps from 1, and the checkpoints of that part alone.

    Args:
        run: The whole run.
        name: Of the part, for checkpoints.
        after: Steps of the parts before.
        steps: Of the whole run.
        kept: Steps of the whole run after which a policy is kept.
        scale: Stored with every checkpoint.
        state: What the part goes on from; None begins.
    """

    def __init__(
        self, run: Run, name: str, after: int, steps: int, kept: Set[int], scale: RewardScale, state: dict[str, Any] | None
    ) -> None:
        self.run, self.name, self.after, self.steps, self.kept = run, name, after, steps, kept
        self.scale, self.state = scale, state
        self.seed, self.directory = run.seed, run.directory

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.run.log(self.after + step, metrics)

    def snapshot(self, policy: Policy, step: int) -> None:
        if self.after + step in self.kept:
            self.run.snapshot(policy, self.after + step)

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        whole = {"part": self.name, "scale": self.scale.state, "state": {**state, "step": step}}
        self.run.save_checkpoint(self.after + step, whole)

    def load_checkpoint(self) -> dict[str, Any] | None:
        return self.state

    def checkpoint_due(self) -> bool:
        return self.run.checkpoint_due()

    def progress(self, total: int, unit: str, done: int = 0) -> AbstractContextManager[Any]:
        return self.run.progress(self.steps, unit, self.after + done)
