"""Sequence-level KL(π‖π_ref) as a Hugging Face `evaluate` metric."""

import datasets
import evaluate
import numpy as np

from suite.maths.statistics import clustered_mean_interval

DESCRIPTION = """KL(π‖π_ref) in nats per completion, from log-probabilities of completions sampled from π at temperature 1
without top-k or top-p. k1 = log π - log π_ref, unbiased, may be negative; k3 = π_ref/π - 1 - log(π_ref/π) per token,
unbiased in expectation over the next token, never negative (http://joschu.net/blog/kl-approx.html)."""
INPUTS = """
Args:
    predictions: Per completion, log π of its tokens in nats, EOS included.
    references: Per completion, log π_ref of the same tokens.
    prompt_ids: Per completion, its prompt; intervals resample prompts. Default: every completion has its own.
    estimator: "k1" or "k3".
    seed: Of the bootstrap.
Returns:
    sequence_kl (mean over completions), low, high (95 %), n (prompts).
"""


class SequenceKL(evaluate.Metric):
    """Mean over completions of the sum over their tokens."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": numbers, "references": numbers})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions, references, prompt_ids=None, estimator="k1", seed=0):
        if estimator not in ("k1", "k3"):
            raise ValueError(f"estimator: expected k1 or k3, got {estimator!r}")
        values = []
        for row, (policy, reference) in enumerate(zip(predictions, references, strict=True)):
            if len(policy) != len(reference) or not len(policy):
                raise ValueError(f"row {row}: {len(policy)} log-probs of the policy, {len(reference)} of the reference")
            difference = np.asarray(policy) - np.asarray(reference)
            values.append(difference.sum() if estimator == "k1" else (np.exp(-difference) - 1 + difference).sum())
        interval = clustered_mean_interval(values, prompt_ids if prompt_ids is not None else range(len(values)), seed=seed)
        return {"sequence_kl": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
