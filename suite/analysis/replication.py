"""Would somebody else come to the same verdict? The words of disjoint sets of training seeds, and of simulated ones."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from suite.analysis.equal_kl import BUDGETS, compare
from suite.maths.frontier import Frontier

SIZE = 3
"""Seeds of a set."""
SIMULATED = 200
"""Simulated sets."""
KEYS = ["kl_budget", "method"]


def disjoint_sets(seeds: Sequence[int], size: int = SIZE) -> list[list[int]]:
    """Seeds in sets of so many, in their order; what is left over is left out."""
    return [list(seeds[k : k + size]) for k in range(0, len(seeds) - size + 1, size)]


def words_of_sets(
    found: Mapping[str, Frontier], sets: Sequence[Sequence[int]], *, against: str, budgets: Sequence[float] = BUDGETS
) -> pd.DataFrame:
    """What `suite.analysis.equal_kl.compare` says of each set of seeds on its own: its rows of other methods, with `set`."""
    parts = []
    for number, seeds in enumerate(sets):
        own = {name: frontier.of(seeds) for name, frontier in found.items()}
        rows = compare(own, against=against, budgets=budgets)
        parts.append(rows[rows["method"] != against].assign(set=number))
    return pd.concat(parts, ignore_index=True)


def changes(words: pd.DataFrame) -> pd.DataFrame:
    """How often the word of a comparison differs between two sets.

    Returns:
        One row per budget and method that every set could compare: `kl_budget`, `method`, `words` (of the sets, in order),
        `pairs` of sets, `changed` of them, and `reversed`: those of a better and a worse.
    """
    rows = []
    for key, part in words[words["difference"].notna()].groupby(KEYS, sort=False):
        if len(part) == words["set"].nunique():
            said = part.sort_values("set")["verdict"].tolist()
            pairs = list(combinations(said, 2))
            turned = sum({a, b} == {"better", "worse"} for a, b in pairs)
            rows.append([*key, ", ".join(said), len(pairs), sum(a != b for a, b in pairs), turned])
    return pd.DataFrame(rows, columns=[*KEYS, "words", "pairs", "changed", "reversed"])


def simulated_frontiers(found: Mapping[str, Frontier], size: int, rng: np.random.Generator) -> dict[str, Frontier]:
    """Frontiers of `size` seeds that nobody has trained: each seed's policies are those of a seed that was, drawn at random and
    for all methods the same, with its mean moved as the seeds at hand scatter, on the same prompts.

    A seed's mean is what is left of a random one of the others, scaled so that the variance of seeds is kept.
    """
    seeds = list(next(iter(found.values())).seeds)
    drawn, moved = rng.choice(seeds, size=size), rng.choice(seeds, size=size)
    rewards: dict[str, list[np.ndarray]] = {name: [] for name in found}
    kls: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for here, there in zip(drawn, moved, strict=True):
        for name, frontier in found.items():
            at = list(frontier.seeds)
            kl, reward = frontier.kl[at.index(here)], frontier.reward[at.index(here)]
            means = frontier.by_seed(kl.mean(axis=1))  # (seeds, policies): every seed's frontier at these policies' KLs
            spread = means - means.mean(axis=0)
            shift = np.sqrt(len(at) / (len(at) - 1)) * spread[at.index(there)] - spread[at.index(here)]
            shift[0] = 0.0  # the reference
            rewards[name].append(reward + shift[:, None])
            kls[name].append(kl)
    return {name: Frontier(range(size), rewards[name], kls[name]) for name in found}


def predicted_changes(
    found: Mapping[str, Frontier], *, against: str, size: int = SIZE, budgets: Sequence[float] = BUDGETS,
    simulated: int = SIMULATED, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The share of pairs of simulated sets whose words differ, to be held against `changes`: `kl_budget`, `method`,
    `predicted`, and `reversed`, the share of a better beside a worse.
    """
    rng, words = np.random.default_rng(seed), []
    for number in range(simulated):
        rows = compare(simulated_frontiers(found, size, rng), against=against, budgets=budgets)
        words.append(rows.loc[rows["method"] != against, [*KEYS, "verdict", "difference"]].assign(set=number))
    rows = []
    for key, part in pd.concat(words).dropna(subset="difference").groupby(KEYS, sort=False):
        counts = part["verdict"].value_counts()
        total = counts.sum() * (counts.sum() - 1)
        same = (counts * (counts - 1)).sum()
        turned = 2 * counts.get("better", 0) * counts.get("worse", 0)
        rows.append([*key, 1 - same / total if total else np.nan, turned / total if total else np.nan])
    return pd.DataFrame(rows, columns=[*KEYS, "predicted", "reversed"])
