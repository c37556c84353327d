"""Win rates under a judge: ask what is not yet stored, count everything, and say what order and length have to do with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from suite.judges.judging import Answer, Comparison, Failure, Judge, Order, Question, Verdict, question_key, questions_of
from suite.judges.verdict_store import VerdictStore
from suite.maths.statistics import Interval, clustered_share_interval

POLL_S = 1.0
SCORES = {"policy": 1.0, "tie": 0.5, "opponent": 0.0}
RIDGE = 0.001
RESAMPLES = 1000


def ask(
    judge: Judge,
    comparisons: Sequence[Comparison],
    store: VerdictStore,
    *,
    order: Order = "both",
    seed: int = 0,
    on_answer: Callable[[int], Any] | None = None,
) -> pd.DataFrame:
    """Every question's verdict: from the store, or asked now and stored the moment it comes.

    Questions that another process asks just now are waited for, and asked here if that process dies.

    Args:
        judge: Who answers.
        comparisons: What is compared.
        store: Where verdicts are.
        order: "both": each comparison twice, with either answer first; "random": once, by a coin that `seed` decides.
        seed: Of the coin.
        on_answer: Called with the number of questions just settled.

    Returns:
        One row per question: `prompt_id`, `comparison` (its index), `swapped`, `winner` (policy, opponent, tie, invalid,
        failed), `verdict` (position), `policy_length`, `opponent_length` [characters], `failure` (why), `stored` (not asked
        now).

    Raises:
        UserError: From the judge; what was answered by then is stored.
    """
    questions = questions_of(comparisons, order=order, seed=seed)
    keys = {question: question_key(judge, question) for question in questions}
    verdicts = store.verdicts(list(dict.fromkeys(keys.values())))
    before, failures = set(verdicts), dict[str, str]()
    done = on_answer or (lambda settled: None)
    done(sum(key in before for key in keys.values()))

    def start(question: Question) -> bool:
        return store.claim(keys[question])

    def receive(question: Question, answer: Answer | Failure) -> None:
        key = keys[question]
        if isinstance(answer, Failure):
            store.release(key)
            failures[key] = answer.reason
        else:
            store.put(key, judge.name, judge.identity, question, answer)
            verdicts[key] = answer.verdict
        done(1)

    open_questions = {key: question for question, key in keys.items() if key not in verdicts}
    while open_questions:
        judge.answer(list(open_questions.values()), receive, start)
        open_questions = {key: q for key, q in open_questions.items() if key not in verdicts and key not in failures}
        if open_questions:  # asked by another process
            time.sleep(POLL_S)
            elsewhere = store.verdicts(list(open_questions))
            verdicts |= elsewhere
            done(len(elsewhere))
            open_questions = {key: question for key, question in open_questions.items() if key not in elsewhere}
    table = verdict_table(questions, [verdicts.get(keys[question]) for question in questions])
    of_rows = [keys[question] for question in questions]
    return table.assign(failure=[failures.get(key, "") for key in of_rows], stored=[key in before for key in of_rows])


def verdict_table(questions: Sequence[Question], verdicts: Sequence[Verdict | None]) -> pd.DataFrame:
    """One row per question: `prompt_id`, `comparison` (its number), `swapped`, `verdict` (position), `winner`, lengths.

    None, no verdict, is a failure.
    """
    numbers: dict[Comparison, int] = {}
    rows = [
        {
            "prompt_id": q.comparison.id, "comparison": numbers.setdefault(q.comparison, len(numbers)), "swapped": q.swapped,
            "verdict": verdict or "", "winner": q.winner(verdict) if verdict else "failed",
            "policy_length": len(q.comparison.policy), "opponent_length": len(q.comparison.opponent),
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: value._asdict() if isinstance(value := getattr(self, name), Interval) else value
            for name in self.__dataclass_fields__
        }


def win_rate(verdicts: pd.DataFrame, *, seed: int = 0) -> WinRate:
    """Summarise the table of `ask`.

    Raises:
        ValueError: No comparison has a valid verdict in every order.
    """
    whole = scores(verdicts)
    if whole.empty:
        raise ValueError(f"winner: no comparison has a valid verdict in every order asked; {counts_of(verdicts)}")
    keep = verdicts[verdicts["comparison"].isin(whole.index)]
    decisive = keep[keep["winner"].isin(["policy", "opponent"]) & (keep["policy_length"] != keep["opponent_length"])]
    longer = (decisive["policy_length"] > decisive["opponent_length"]) == (decisive["winner"] == "policy")
    both = keep.groupby("comparison").filter(lambda rows: len(rows) == 2)
    flips = both.groupby("comparison").agg(flip=("verdict", _same_position), id=("prompt_id", "first"))
    winners = verdicts["winner"]
    return WinRate(
        win_rate=clustered_share_interval(whole["score"], whole["prompt_id"], seed=seed),
        length_controlled=length_controlled_win_rate(
            whole["score"], whole["policy_length"] - whole["opponent_length"], whole["prompt_id"], seed=seed
        ),
        flips=clustered_share_interval(flips["flip"].astype(float), flips["id"], seed=seed) if len(flips) else None,
        longer_wins=clustered_share_interval(longer.astype(float), decisive["prompt_id"], seed=seed) if len(decisive) else None,
        n_asked=len(verdicts), n_valid=int(winners.isin(list(SCORES)).sum()), n_tie=int((winners == "tie").sum()),
        n_invalid=int((winners == "invalid").sum()), n_failed=int((winners == "failed").sum()),
        n_comparisons=len(whole), n_compared=verdicts["comparison"].nunique(),
    )  # fmt: skip


def counts_of(verdicts: pd.DataFrame) -> str:
    """The counts of a table of verdicts on one line, whatever became of them."""
    winners = verdicts["winner"]
    valid = int(winners.isin(list(SCORES)).sum())
    others = ", ".join(f"n_{name} {(winners == name).sum():,}" for name in ("tie", "invalid", "failed"))
    return f"n_asked {len(winners):,}, n_valid {valid:,}, {others}"


def _same_position(verdicts: pd.Series) -> bool:
    return verdicts.nunique() == 1 and verdicts.iloc[0] != "tie"


def scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison with a valid verdict in every order asked: `score` (1, ½, 0, or their mean), lengths, prompt."""
    valued = verdicts.assign(score=verdicts["winner"].map(SCORES))
    whole = valued.groupby("comparison").filter(lambda rows: bool(rows["score"].notna().all()))
    columns = {"score": "mean", "prompt_id": "first", "policy_length": "first", "opponent_length": "first"}
    return whole.groupby("comparison").agg(columns)


def length_controlled_win_rate(
    scores: ArrayLike, length_differences: ArrayLike, prompts: Sequence[Any] | pd.Series, *, seed: int = 0
) -> Interval:
    """Win rate that a policy would have at equal length: P = σ(θ), from logit P(win) = θ + φ·d.

    d = difference in characters over its root mean square. A logistic regression with a ridge of n·`RIDGE`/2·φ² and none on θ;
    the interval is that of refits on resampled prompts (percentiles). After Dubois et al. 2024 (arXiv:2404.04475), whose model
    also has a term for each prompt's difficulty, which needs many policies. If quality itself goes with length, the part of
    it that does is taken out too.

    Args:
        scores: 1 won, 0 lost, fractions between. Shape (comparisons,).
        length_differences: Policy's minus opponent's length. Same shape.
        prompts: The prompt of each.
        seed: Of the resampling.
    """
    y, d = np.asarray(scores, dtype=float), np.asarray(length_differences, dtype=float)
    scale = np.sqrt(np.mean(d**2))
    d = d / scale if scale > 0 else d
    _, clusters = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
    count = int(clusters.max()) + 1
    mean = float(_fit(y, d, np.ones((1, len(y))))[0])
    if count < 3:
        return Interval(mean, float("nan"), float("nan"), count)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.quantile(_fit(y, d, drawn[:, clusters].astype(float)), [0.025, 0.975])
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


def describe(result: WinRate) -> str:
    """The counts on one line, then the rates, as Markdown."""

    def show(interval: Interval | None) -> str:
        return "–" if interval is None else f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    tied = "" if not result.win_rate.low <= 0.5 <= result.win_rate.high else " statistically tied"
    counts = ", ".join(f"{name} {value:,}" for name, value in asdict(result).items() if name.startswith("n_"))
    return (
        f"{counts}\n\n| | share, 95 % over {result.win_rate.n:,} prompts |\n|:--|--:|\n"
        f"| **win rate of the policy** | **{show(result.win_rate)}**{tied} |\n"
        f"| length-controlled win rate | {show(result.length_controlled)} |\n"
        f"| the two orders name the same position | {show(result.flips)} |\n"
        f"| the longer answer wins | {show(result.longer_wins)} |\n"
    )
