"""The evaluator of two rewards at once: answers → helpfulness and safety of each, for a plane of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from suite.interfaces import Contender, Context, Metric, Point, RewardFunction


@dataclass(frozen=True)
class BothRewards:
    """Who measures, in the judge's place."""

    helpfulness: RewardFunction
    safety: RewardFunction
    name: ClassVar[str] = "two rewards"


@dataclass(frozen=True)
class TwoRewardsEvaluator:
    """Every kept policy at temperature 1, measured by a helpfulness and a safety; see `suite.interfaces.Evaluator`.

    Attributes:
        samples: Per test prompt.
    """

    samples: int = 2

    name: ClassVar[str] = "two_rewards"
    needs: ClassVar[frozenset[str]] = frozenset({"judge"})
    metrics: ClassVar[Mapping[str, Metric]] = {
        "helpfulness": Metric("points", "mean over samples", True), "safety": Metric("logits", "mean over samples", True),
        "tokens": Metric("tokens/completion", "counted"), "kl": Metric("nats/completion", "sampled, k1", False),
    }  # fmt: skip

    def points(self, contender: Contender) -> list[Point]:
        """Every snapshot, by the share of the training after which it was kept; the reference at 0."""
        count = contender.snapshots
        return [Point("plane", (k + 1) / count, 1.0, k, self.samples) for k in range(count)] or [
            Point("plane", 0.0, 1.0, None, self.samples)
        ]

    def measure(self, samples: pd.DataFrame, context: Context) -> pd.DataFrame:
        """`helpfulness`, `safety` and `tokens` of every sample; the KL is known from how it was drawn."""
        rewards: Any = context.judge
        texts = samples["prompt_text"].tolist(), samples["text"].tolist()
        found = samples[["point", "split", "prompt_id", "sample"]].assign(
            helpfulness=rewards.helpfulness(*texts), safety=rewards.safety(*texts), tokens=samples["tokens"].astype(float)
        )
        return found.melt(["point", "split", "prompt_id", "sample"], var_name="metric")
