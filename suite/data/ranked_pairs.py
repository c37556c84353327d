"""Scored samples → one pair per prompt, the best against the worst, rated by how far apart they are."""

import numpy as np
import pandas as pd

QUARTILES = (0.25, 0.5, 0.75)


def best_and_worst(samples: pd.DataFrame) -> pd.DataFrame:
    """The best and the worst sample of every prompt, where they differ, with a rating by quartile of the gap.

    Args:
        samples: One row per sample: `prompt_id`, `text`, `score`. Samples without a word are left out.

    Returns:
        One row per prompt, in their order: `prompt_id`, `chosen`, `rejected`, `score_chosen`, `score_rejected`, and `rating`: 3
        for the quarter of the pairs whose scores are farthest apart, 0 for the quarter of the nearest.
    """
    rows = []
    for prompt_id, some in samples[samples["text"].str.strip() != ""].groupby("prompt_id", sort=False):
        best, worst = some.loc[some["score"].idxmax()], some.loc[some["score"].idxmin()]
        if best["score"] > worst["score"]:
            rows.append((prompt_id, best["text"].strip(), worst["text"].strip(), best["score"], worst["score"]))
    found = pd.DataFrame(rows, columns=["prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"])
    gaps = found["score_chosen"] - found["score_rejected"]
    bounds = np.quantile(gaps, QUARTILES) if len(gaps) else np.zeros(len(QUARTILES))
    return found.assign(rating=np.searchsorted(bounds, gaps, side="left"))
