"""Win rates under a judge: ask what is not yet stored, count everything, and say what order and length have to do with it."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Comparison, Failure, Order, Question, Verdict
from suite.interfaces import Judge
from suite.judges.judging import question_key, questions_of, shown
from suite.judges.verdict_store import VerdictStore
from suite.maths.statistics import Interval, clustered_share_interval, exactly

POLL_S = 1.0
REFUSALS = 5
"""So many questions refused in the same words, one after the other, while none has a verdict: the judge refuses them all."""
SCORES = {"policy": 1.0, "tie": 0.5, "opponent": 0.0}
RIDGE = 0.001
RESAMPLES = 1000
AT_ONCE = 2**22
"""Numbers of an array of resamples at a time."""
COUNTS = ("asked", "valid", "tie", "invalid", "failed")
NUMBERS = ("win", "same_position", "decisive", "longer_wins", "policy_length", "opponent_length", *COUNTS)
"""What `numbers_of` says of each comparison."""


def ask(
    judge: Judge, comparisons: Sequence[Comparison], store: VerdictStore, *, order: Order = "both", seed: int = 0,
    on_answer: Callable[[int], Any] = lambda settled: None,
) -> pd.DataFrame:  # fmt: skip
    """Every question's verdict: from the store, or asked now and stored the moment it comes.

    Questions that another process asks just now are waited for, and asked here if that process dies.

    Args:
        judge, comparisons, store: Who answers what, and where verdicts are kept.
        order: "both": each comparison twice, with either answer first; "random": once, by a coin that `seed` decides.
        seed: Of the coin.
        on_answer: Called with the number of questions just settled.

    Returns:
        The columns of `verdict_table`, `failure` (why there is no verdict), `stored` (not asked now) and `key` (in the store).

    Raises:
        UserError: From the judge, or it refuses whatever it is asked; what was answered by then is stored.
    """
    questions = questions_of(comparisons, order=order, seed=seed)
    keys = {question: question_key(judge, question) for question in questions}
    verdicts = store.verdicts(list(dict.fromkeys(keys.values())))
    before, failures = set(verdicts), dict[str, str]()
    refusals: list[str] = []
    told = False
    on_answer(sum(key in before for key in keys.values()))

    def receive(question: Question, answer: Answer | Failure) -> None:
        key = keys[question]
        if isinstance(answer, Failure):
            store.release(key)
            failures[key] = answer.reason
            if answer.refused:
                refusals.append(re.sub(r"\S*\d\S*", "", answer.reason))  # numbers and names of requests differ
            if not verdicts and len(refusals) >= REFUSALS and len(set(refusals[-REFUSALS:])) == 1:
                raise UserError(f"{shown(judge.name)} refuses every question so far, the last with: {answer.reason}")
        else:
            store.put(key, judge.name, judge.identity, question, answer)
            verdicts[key] = answer.verdict
        on_answer(1)

    while missing := {key: q for q, key in keys.items() if key not in verdicts and key not in failures}:
        judge.answer(list(missing.values()), receive, lambda question: store.claim(keys[question]))
        if elsewhere := [key for key in missing if key not in verdicts and key not in failures]:  # asked by another process
            if not told and (holders := store.holders(elsewhere)):
                print(f"\nwaiting for the verdicts of {', '.join(holders)}", file=sys.stderr)
                told = True
            time.sleep(POLL_S)
            found = store.verdicts(elsewhere)
            verdicts |= found
            on_answer(len(found))
    of_rows = [keys[question] for question in questions]
    table = verdict_table(questions, [verdicts.get(key) for key in of_rows])
    return table.assign(
        failure=[failures.get(key, "") for key in of_rows], stored=[key in before for key in of_rows], key=of_rows
    )


def verdict_table(questions: Sequence[Question], verdicts: Sequence[Verdict | None]) -> pd.DataFrame:
    """One row per question: `prompt_id`, `comparison` (its number), `swapped`, `verdict` (position), `winner` (policy,
    opponent, tie, invalid; failed where the verdict is None), `policy_length` and `opponent_length` [characters], `same_text`.
    """
    numbers: dict[Comparison, int] = {}
    rows = [
        {
            "prompt_id": q.comparison.id, "comparison": numbers.setdefault(q.comparison, len(numbers)), "swapped": q.swapped,
            "verdict": verdict or "", "winner": q.winner(verdict) if verdict else "failed",
            "policy_length": len(q.comparison.policy), "opponent_length": len(q.comparison.opponent),
            "same_text": q.comparison.policy == q.comparison.opponent,
        }
        for q, verdict in zip(questions, verdicts, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class WinRate:
    """What a table of verdicts says. Shares have 95 % intervals, clustered by prompt.

    Attributes:
        win_rate: Of the policy; a comparison counts 1, ½ (tie, or two orders that contradict each other) or 0. Only comparisons
            of which every order has a valid verdict.
        length_controlled: The same at equal length (`length_controlled_win_rate`).
        flips: Share of comparisons whose two orders name the same *position*; None if there was one order.
        longer_wins: Share of decisive verdicts that the longer answer wins.
        n_asked: Questions, of which `n_valid` (a choice or a tie), `n_tie`, `n_invalid` (a reply without a choice) and
            `n_failed` (no reply).
        n_comparisons: With all verdicts valid, out of `n_compared`.
        same_texts: Both give the same text to every prompt: a half by construction, whatever the judge says.
    """

    win_rate: Interval
    length_controlled: Interval
    flips: Interval | None
    longer_wins: Interval | None
    n_asked: int
    n_valid: int
    n_tie: int
    n_invalid: int
    n_failed: int
    n_comparisons: int
    n_compared: int
    same_texts: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value._asdict() if isinstance(value, Interval) else value for name, value in vars(self).items()}


def numbers_of(verdicts: pd.DataFrame) -> pd.DataFrame:
    """What the table of `ask` says of each comparison.

    Returns:
        One row per comparison: `prompt_id`; `win` (1, ½, 0, or their mean over the orders; NaN unless every order asked has a
        valid verdict; so are the next three); `same_position` (1 where both orders name the same position, NaN with one order);
        `decisive` verdicts on answers of different length, and how many of them the longer wins, `longer_wins`;
        `policy_length`, `opponent_length` [characters]; and the counts `asked`, `valid`, `tie`, `invalid`, `failed`.
    """
    rows = []
    for _, part in verdicts.groupby("comparison", sort=True):
        winners, first = part["winner"], part.iloc[0]
        values, lengths = winners.map(SCORES), (first["policy_length"], first["opponent_length"])
        whole = bool(values.notna().all())
        decided = winners[winners.isin(["policy", "opponent"])] if whole and lengths[0] != lengths[1] else winners[:0]
        longer = "policy" if lengths[0] > lengths[1] else "opponent"
        same = part["verdict"].nunique() == 1 and part["verdict"].iloc[0] != "tie"
        rows.append(
            {"prompt_id": first["prompt_id"], "win": values.mean() if whole else np.nan,
             "same_position": float(same) if whole and len(part) == 2 else np.nan,
             "decisive": len(decided) if whole else np.nan, "longer_wins": (decided == longer).sum() if whole else np.nan,
             "policy_length": lengths[0], "opponent_length": lengths[1], "asked": len(part),
             "valid": winners.isin(list(SCORES)).sum(), **{name: (winners == name).sum() for name in COUNTS[2:]}}
        )  # fmt: skip
    return pd.DataFrame(rows)


def win_rate(verdicts: pd.DataFrame, *, seed: int = 0) -> WinRate:
    """Summarise the table of `ask`; raises ValueError if no comparison has a valid verdict in every order."""
    found = summary_of(numbers_of(verdicts), seed=seed)
    if "same_text" not in verdicts or not verdicts["same_text"].all():
        return found
    half = exactly(0.5, found.win_rate.n)
    return replace(found, win_rate=half, length_controlled=half, same_texts=True)


def summary_of(numbers: pd.DataFrame, *, seed: int = 0) -> WinRate:
    """As `win_rate`, from what `numbers_of` says of each comparison."""
    counts = {f"n_{name}": int(numbers[name].sum()) for name in COUNTS}
    whole = numbers[numbers["win"].notna()]
    if whole.empty:
        shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise ValueError(f"winner: no comparison has a valid verdict in every order asked; {shown}")
    flips = whole[whole["same_position"].notna()]
    longer, decided = whole["longer_wins"].astype(int), whole["decisive"].astype(int)
    each = np.concatenate([[1.0] * won + [0.0] * (all_ - won) for won, all_ in zip(longer, decided, strict=True)])
    return WinRate(
        win_rate=clustered_share_interval(whole["win"], whole["prompt_id"], seed=seed),
        length_controlled=length_controlled_win_rate(
            whole["win"], whole["policy_length"] - whole["opponent_length"], whole["prompt_id"], seed=seed
        ),
        flips=clustered_share_interval(flips["same_position"], flips["prompt_id"], seed=seed) if len(flips) else None,
        longer_wins=clustered_share_interval(each, np.repeat(whole["prompt_id"], decided), seed=seed) if len(each) else None,
        n_comparisons=len(whole), n_compared=len(numbers), same_texts=False, **counts,
    )  # fmt: skip


def length_controlled_win_rate(
    scores: ArrayLike, length_differences: ArrayLike, prompts: Sequence[Any] | pd.Series, *, seed: int = 0
) -> Interval:
    """Win rate that a policy would have at equal length: P = σ(θ), from logit P(win) = θ + φ·d.

    d = difference in characters over its root mean square. A logistic regression with a ridge of n·`RIDGE`/2·φ² and none on θ;
    the interval is that of refits on resampled prompts (percentiles). After Dubois et al. 2024 (arXiv:2404.04475), whose model
    also has a term for each prompt's difficulty, which needs many policies. If quality itself goes with length, the part of
    it that does is taken out too. Of every comparison it takes the score (1 won, 0 lost, fractions between), the policy's minus
    the opponent's length, and the prompt; all of shape (comparisons,).
    """
    y, d = np.asarray(scores, dtype=float), np.asarray(length_differences, dtype=float)
    scale = np.sqrt(np.mean(d**2))
    d = d / scale if scale > 0 else d
    _, clusters = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
    count = int(clusters.max()) + 1
    if np.ptp(y) == 0:  # whatever the lengths
        return clustered_share_interval(y, clusters, seed=seed)
    mean = float(_fit(y, d, np.ones((1, len(y))))[0])
    if count < 3:
        return Interval(mean, float("nan"), float("nan"), count)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    parts = np.array_split(drawn, max(1, RESAMPLES * len(y) // AT_ONCE))
    low, high = np.quantile(np.concatenate([_fit(y, d, part[:, clusters].astype(float)) for part in parts]), [0.025, 0.975])
    return Interval(mean, float(low), float(high), count)


def _fit(y: NDArray[np.float64], d: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ(θ) by Newton's method, one fit per row of weights. Shape (rows of weights,)."""
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    total = weights.sum(1)
    for _ in range(30):
        p = expit(theta[:, None] + phi[:, None] * d)
        residual, curvature = weights * (y - p), weights * p * (1 - p) + 1e-12
        g = np.stack([residual.sum(1), residual @ d - RIDGE * total * phi])
        h00, h01, h11 = curvature.sum(1), curvature @ d, curvature @ d**2 + RIDGE * total
        determinant = h00 * h11 - h01**2
        step = np.stack([h11 * g[0] - h01 * g[1], h00 * g[1] - h01 * g[0]]) / determinant
        theta, phi = np.clip(theta + np.clip(step[0], -2, 2), -15, 15), np.clip(phi + np.clip(step[1], -2, 2), -15, 15)
    return expit(theta)
