"""DPO for rankings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from suite.data.preference_data import Ranking
from suite.interfaces import Policy, Promise, Run, TrainingData
from suite.maths.losses import implicit_reward_metrics, plackett_luce_dpo_loss
from suite.methods.dpo import DPOConfig
from suite.training.loop import fit
from suite.training.settings import OptimConfig


class PlackettLuceDPO:
    """The likelihood of whole rankings under the implicit reward (`suite.maths.losses.plackett_luce_dpo_loss`).

    `optim.batch_size` counts pairs, as in DPO: a ranking of k stands for k·(k - 1)/2 of them, so that both take about the same
    number of optimizer steps on the same data. Logs the metrics of `implicit_reward_metrics`, the best against the worst.
    """

    name: ClassVar[str] = "PL-DPO"
    Config: ClassVar[type] = DPOConfig
    needs: ClassVar[frozenset[str]] = frozenset({"rankings"})
    promise: ClassVar[Promise] = "follows_optimum"
    evaluated_from_pool: ClassVar[bool] = False

    def train(self, data: TrainingData, reference: Policy, config: DPOConfig, run: Run) -> Policy:
        def loss_fn(policy, rankings):
            policy_logps, reference_logps, mask = ranking_log_probs(policy, rankings)
            losses = plackett_luce_dpo_loss(policy_logps, reference_logps, mask, beta=config.beta)
            last = mask.sum(1, keepdim=True) - 1
            ends = [side for logps in (policy_logps, reference_logps) for side in (logps[:, 0], logps.gather(1, last)[:, 0])]
            return losses, implicit_reward_metrics(*ends, beta=config.beta)

        return fit(reference.copy(), data.rankings, loss_fn, in_rankings(config.optim, data.rankings), run)


def in_rankings(optim: OptimConfig, rankings: Sequence[Ranking]) -> OptimConfig:
    """The same settings with the batch size in rankings instead of pairs."""
    pairs = sum(len(r.completions) * (len(r.completions) - 1) // 2 for r in rankings) / max(1, len(rankings))
    return replace(optim, batch_size=max(1, round(optim.batch_size / max(1.0, pairs))))


def ranking_log_probs(policy, rankings: Sequence[Ranking]) -> tuple[Tensor, Tensor, Tensor]:
    """Policy and reference log-probs (nats, summed over tokens) and the mask, each of shape (rankings, longest ranking)."""
    logps = policy.completion_log_probs([c for ranking in rankings for c in ranking.completions])
    lengths = torch.tensor([len(ranking.completions) for ranking in rankings], device=logps.device)
    mask = torch.arange(int(lengths.max()), device=logps.device) < lengths[:, None]
    reference = logps.new_tensor([value for ranking in rankings for value in ranking.reference_logps])
    empty = logps.new_zeros(mask.shape)
    return empty.masked_scatter(mask, logps), empty.masked_scatter(mask, reference), mask
