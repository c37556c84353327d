"""Gold reward of texts as a Hugging Face `evaluate` measurement."""

import datasets
import evaluate

from suite.maths.statistics import clustered_mean_interval
from suite.rewards.open_reward import open_reward

DESCRIPTION = """Mean P(positive) of prompt + completion under a two-class text classifier, the gold reward of the controlled
sentiment experiment of Rafailov et al. 2023."""
INPUTS = """
Args:
    data: Completions.
    prompts: Their prompts. Default: none, the data are whole texts.
    classifier: `save_pretrained` folder of a classifier with labels NEGATIVE and POSITIVE, or the embedded gold reward's.
    prompt_ids: Per completion, its prompt; intervals resample prompts. Default: the prompts, or every text its own.
    seed: Of the bootstrap.
Returns:
    reward, low, high (95 %), n (prompts).
"""


class Reward(evaluate.Measurement):
    """Mean over texts."""

    def _info(self) -> evaluate.MeasurementInfo:
        features = datasets.Features({"data": datasets.Value("string")})
        return evaluate.MeasurementInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, data, classifier, prompts=None, prompt_ids=None, seed=0):
        values = open_reward(classifier)([""] * len(data) if prompts is None else prompts, data)
        units = next(some for some in (prompt_ids, prompts, range(len(data))) if some is not None)
        interval = clustered_mean_interval(values, list(units), seed=seed)
        return {"reward": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
