"""The evaluator of frontiers: samples → gold reward and KL(π‖π_ref), one row per completion and metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from suite.data.parquet import completions_from_table
from suite.data.preference_data import Prompt
from suite.interfaces import Contender, Context, Metric, Point, Split

COLUMNS = {
    **dict.fromkeys(("reward", "log_odds", "kl_k1", "kl_per_token", "tokens", "sampler_kl", "truncated")),
    "kl": "kl_exact", "reference_log_prob": "reference_logps",
}  # fmt: skip
"""Metric → column of `evaluate_reward_kl`, where it has another name."""


@dataclass(frozen=True)
class RewardKLEvaluator:
    """Gold reward against KL(π‖π_ref), see `suite.interfaces.Evaluator`.

    Attributes:
        temperatures: At which each run's last policy is sampled; empty: every kept policy at 1, which is the frontier.
        splits: On whose prompts.
        pool: On test prompts the reference and Best-of-N are measured on a large pool of reference samples.
        samples: Completions per prompt.
        panel: Of which figure the pool's points are; in that of Best-of-N they stand at their N.
    """

    temperatures: tuple[float, ...] = ()
    splits: tuple[Split, ...] = ("validation", "test")
    pool: bool = True
    samples: int = 1
    panel: str = "frontier"

    name: ClassVar[str] = "reward_kl"
    needs: ClassVar[frozenset[str]] = frozenset({"gold_reward", "next_token_log_probs"})
    metrics: ClassVar[Mapping[str, Metric]] = {
        "reward": Metric("gold reward", "mean over prompts", True),
        "log_odds": Metric("nats", "mean over prompts", True),
        "kl": Metric("nats/completion", "exact per step", False),
        "kl_k1": Metric("nats/completion", "sampled, k1", False),
        "kl_per_token": Metric("nats/token", "exact per step, mean over completions", False),
        "tokens": Metric("tokens/completion", "mean over prompts"),
        "reference_log_prob": Metric("nats/completion", "log π_ref of the completion"),
        "sampler_kl": Metric("nats/completion", "sampled, k3, sampler against scorer", False),
        "truncated": Metric("share", "mean over prompts"),
    }

    def points(self, contender: Contender) -> list[Point]:
        """Every kept policy, or the last at several temperatures; Best-of-N and the reference's test reward from the pool."""
        if self.temperatures:
            last = contender.snapshots - 1 if contender.snapshots else None
            return [Point("temperature", t, t, last, self.samples) for t in self.temperatures if contender.n == 1]
        pooled = (
            [Point(self.panel, float(contender.n if self.panel == "best_of_n" else 0), samples=0)]
            if self.pool and not contender.snapshots and "test" in self.splits
            else []
        )
        if contender.n > 1:
            return pooled
        kept: Sequence[int | None] = range(contender.snapshots) if contender.snapshots else [None]
        return [*(Point("frontier", snapshot=k, samples=self.samples, splits=self.splits) for k in kept), *pooled]

    def measure(self, samples: pd.DataFrame, context: Context) -> pd.DataFrame:
        """One row per completion and metric of `COLUMNS` that is known; away from temperature 1 the KL is the sampler's."""
        if context.policy is None or context.reference is None or context.gold_reward is None:
            raise ValueError("context: expected policy, reference and gold_reward, which `needs` names")
        from suite.evaluation.reward_kl import check_sampler, kl_columns, score

        parts = []
        for _, frame in samples.groupby("split", sort=False):
            prompts = [Prompt(row.prompt_id, tuple(map(int, row.prompt_ids)), row.prompt_text) for row in frame.itertuples()]
            completions = completions_from_table(frame, prompts)
            reward, log_odds = score(context.gold_reward, completions)
            found = kl_columns(context.policy, context.reference, completions, context.temperature)
            check_sampler(found["sampler_kl"].mean())
            known = frame.assign(reward=reward, log_odds=log_odds, **found, kl_per_token=found["kl_exact"] / frame["tokens"])
            parts += [
                known[["point", "split", "prompt_id", "sample"]].assign(
                    metric=metric, value=known[column or metric].astype(float)
                )
                for metric, column in COLUMNS.items()
                if known[column or metric].notna().any()  # a reward may have no log-odds
            ]
        return pd.concat(parts, ignore_index=True)
