"""Win rate as a Hugging Face `evaluate` metric."""

import datasets
import evaluate

from suite.maths.statistics import clustered_share_interval

DESCRIPTION = """Share of comparisons that a policy wins, ties counted half. Verdicts that are neither win, tie nor loss are
counted apart and never guessed."""
INPUTS = """
Args:
    predictions: Verdict of each comparison: "win", "tie", "loss", or anything else for none.
    prompt_ids: Per comparison, its prompt (both orders of one pair share it); intervals resample prompts. Default: every
        comparison has its own.
    seed: Of the bootstrap.
Returns:
    win_rate, low, high (95 %), n (prompts with a verdict), n_asked, n_valid, n_tie, n_invalid.
"""
VALUES = {"win": 1.0, "tie": 0.5, "loss": 0.0}


class WinRate(evaluate.Metric):
    """Mean over comparisons with a verdict."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions, prompt_ids=None, seed=0):
        units = prompt_ids if prompt_ids is not None else list(range(len(predictions)))
        valid = [(VALUES[verdict], unit) for verdict, unit in zip(predictions, units, strict=True) if verdict in VALUES]
        if not valid:
            raise ValueError(f"predictions: none of {len(predictions)} is one of {', '.join(VALUES)}")
        values, clusters = zip(*valid, strict=True)
        interval = clustered_share_interval(values, clusters, seed=seed)
        return {
            "win_rate": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n,
            "n_asked": len(predictions), "n_valid": len(valid), "n_tie": sum(value == 0.5 for value in values),
            "n_invalid": len(predictions) - len(valid),
        }  # fmt: skip
