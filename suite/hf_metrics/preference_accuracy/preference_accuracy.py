"""Preference accuracy as a Hugging Face `evaluate` metric."""

import datasets
import evaluate
import numpy as np

from suite.maths.statistics import clustered_share_interval

DESCRIPTION = """Share of preference pairs in which the chosen completion has the higher score, ties counted half: of a reward
model, or of DPO's implicit reward β·log π/π_ref."""
INPUTS = """
Args:
    predictions: Score of the chosen completion of each pair.
    references: Score of the rejected one.
    prompt_ids: Per pair, its prompt; intervals resample prompts. Default: every pair has its own.
    seed: Of the bootstrap.
Returns:
    accuracy, low, high (95 %), n (prompts).
"""


class PreferenceAccuracy(evaluate.Metric):
    """Mean over pairs."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("float64")))
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions, references, prompt_ids=None, seed=0):
        chosen, rejected = np.asarray(predictions), np.asarray(references)
        right = np.where(chosen == rejected, 0.5, chosen > rejected)
        interval = clustered_share_interval(right, prompt_ids if prompt_ids is not None else range(len(right)), seed=seed)
        return {"accuracy": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
