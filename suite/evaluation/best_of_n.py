"""Best-of-N from samples of the reference: the expected reward of every N from one pool, and the very sample that is kept."""

import pandas as pd

from suite.maths.best_of_n import best_of_n_kl_bound, expected_best_of_n


def pool_rows(
    rewards: pd.DataFrame, n: int, scores: pd.DataFrame | None = None, log_odds: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What a frontier knows of Best-of-`n` on test prompts; at n = 1 that is the reference itself.

    Args:
        rewards: Gold reward, one row per prompt, one column per reference sample.
        n: How many are drawn.
        scores: What selects, in the same layout; None: the gold reward.
        log_odds: Of the gold reward in the same layout, where it has any.

    Returns:
        `split`, `prompt_id`, `sample` (-1: expected over the pool), `metric` ("reward", "log_odds", and "kl": the bound
        log n - (n - 1)/n nats), `value`.
    """
    by = (rewards if scores is None else scores).to_numpy()
    rows = pd.DataFrame({"split": "test", "prompt_id": rewards.index, "sample": -1})
    values = [("reward", expected_best_of_n(rewards.to_numpy(), n, scores=by)), ("kl", best_of_n_kl_bound(n))]
    if log_odds is not None:
        values.append(("log_odds", expected_best_of_n(log_odds.to_numpy(), n, scores=by)))
    return pd.concat([rows.assign(metric=metric, value=value) for metric, value in values], ignore_index=True)


def kept_sample(samples: pd.DataFrame, scores: pd.DataFrame, n: int) -> pd.DataFrame:
    """Of each prompt's first `n` samples (`prompt_id`, `sample` and what else is known) the row with the highest of the scores
    (`prompt_id`, `sample`, `score`); ties go to the first.
    """
    frame = samples.merge(scores, on=["prompt_id", "sample"])
    frame = frame[frame["sample"] < n]
    return frame.loc[frame.groupby("prompt_id", sort=False)["score"].idxmax()]
