"""The gold reward of the embedded models and its rival: n-grams by logistic regression, and a language model's trunk."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from asset_tools import encode
from scipy import optimize, sparse
from torch.nn import functional
from tqdm import tqdm

from suite.common.machine import bfloat16_is_native
from suite.rewards.ngram_reward import NgramReward, ngrams_of
from suite.rewards.reward_model import RewardModel

LogOdds = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Windows:
    """Pieces of reviews: which n-grams of a vocabulary each holds, the label of its review, and which review it is."""

    occurs: sparse.csr_matrix
    labels: np.ndarray
    review: np.ndarray


def vocabulary(texts: Sequence[str], fewest: int) -> np.ndarray:
    """The n-grams that occur in at least so many texts, as hashes in growing order."""
    counts: Counter[int] = Counter()
    for text in tqdm(texts, desc="counting", mininterval=10):
        counts.update(ngrams_of(text))
    return np.array(sorted(ngram for ngram, count in counts.items() if count >= fewest), dtype=np.uint32)


def window(text: str, rng: random.Random, shortest: int, longest: int) -> str:
    """A piece of a text: its length in words log-uniform, three in ten are beginnings."""
    words = list(re.finditer(r"\S+", text))
    length = min(len(words), round(math.exp(rng.uniform(math.log(shortest), math.log(longest)))))
    first = rng.randrange(len(words) - length + 1) if rng.random() < 0.7 else 0
    return text[words[first].start() : words[first + length - 1].end()]


def draw_windows(
    texts: Sequence[str], labels: Sequence[int], known: np.ndarray, *, each: int, shortest: int, longest: int, seed: int
) -> Windows:
    """So many windows of each text."""
    place, rng = {ngram: k for k, ngram in enumerate(known.tolist())}, random.Random(seed)
    columns, ends = [], [0]
    for text in tqdm(texts, desc="windows", mininterval=10):
        for _ in range(each):
            columns.append(
                np.array([place[n] for n in ngrams_of(window(text, rng, shortest, longest)) if n in place], np.int32)
            )
            ends.append(ends[-1] + len(columns[-1]))
    occurs = sparse.csr_matrix((np.ones(ends[-1]), np.concatenate(columns), ends), shape=(len(columns), len(known)))
    return Windows(occurs, np.repeat(np.array(labels, dtype=float), each), np.repeat(np.arange(len(texts)), each))


def fit_ngrams(windows: Windows, rows: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression with an L2 penalty, on n-grams scaled by their log-count ratio (Wang and
    Manning 2012, eq. 1 and 2): those that say nothing by themselves stay small.
    """
    occurs, labels = windows.occurs[rows], windows.labels[rows]
    often, seldom = (1 + occurs.T @ of for of in (labels, 1 - labels))
    ratio = np.log((often / often.sum()) / (seldom / seldom.sum()))
    scaled = (occurs @ sparse.diags(ratio)).tocsr()
    turned, signs = scaled.T.tocsr(), 2 * labels - 1

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (scaled @ x[:-1] + x[-1])
        slopes = -signs / (1 + np.exp(margins))
        value = np.logaddexp(0, -margins).sum() + penalty / 2 * (x[:-1] @ x[:-1])
        return float(value), np.append(turned @ slopes + penalty * x[:-1], slopes.sum())

    found = optimize.minimize(loss, np.zeros(occurs.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return found.x[:-1] * ratio, float(found.x[-1])


def log_loss(windows: Windows, rows: np.ndarray, weights: np.ndarray, bias: float) -> float:
    """Mean negative log-likelihood of the labels, nats."""
    signs = 2 * windows.labels[rows] - 1
    return float(np.logaddexp(0, -signs * (windows.occurs[rows] @ weights + bias)).mean())


def fit_reward(
    windows: Windows, known: np.ndarray, penalty: float, others: Sequence[float], seed: int
) -> tuple[NgramReward, dict[str, str]]:
    """The fit to all reviews; and what the card says of the penalty: the loss on a tenth of them, fitted to the others."""
    reviews = windows.review.max() + 1
    held_out = np.isin(windows.review, np.random.default_rng(seed).permutation(reviews)[: max(1, reviews // 10)])
    tried = {p: log_loss(windows, held_out, *fit_ngrams(windows, ~held_out, p)) for p in tqdm((penalty, *others))}
    weights, bias = fit_ngrams(windows, np.ones(len(held_out), dtype=bool), penalty)
    losses = ", ".join(f"{p:g}: {loss:.4f}" for p, loss in sorted(tried.items()))
    return NgramReward(known, weights.astype(np.float16), bias), {
        "n-grams": f"{len(known)}", "penalty": f"{penalty:g}; nats per window of a tenth of the training reviews: {losses}",
    }  # fmt: skip


def rival_batches(texts: Sequence[str], labels: Sequence[int], config) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Endless batches of windows for the trunk; all of a batch have about the same length."""
    for step in range(10**9):
        rng = random.Random(f"{config.seed}/{step}")
        length = round(math.exp(rng.uniform(math.log(config.shortest), math.log(config.longest))))
        chosen = rng.choices(range(len(texts)), k=config.batch_size * max(1, min(4, 80 // length)))
        pieces = [window(texts[i], rng, length, length) for i in chosen]
        yield pieces, torch.tensor([float(labels[i]) for i in chosen])


def rival_loss(model: RewardModel) -> Callable[[tuple[list[str], torch.Tensor]], torch.Tensor]:
    """Cross-entropy of the labels under σ of the reward model's scalar."""

    def loss_of(batch: tuple[list[str], torch.Tensor]) -> torch.Tensor:
        texts, labels = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_native()):
            scores = model.raw([""] * len(texts), texts)
        return functional.binary_cross_entropy_with_logits(scores.float(), labels)

    return loss_of


def beginnings(tokenizer, texts: list[str], labels: list[int]) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Name of a length in tokens of the language model, reviews cut to it (those that have it), and their labels."""
    documents, truth = encode(tokenizer, texts), np.array(labels)
    for name, length in {"16 tokens": 16, "32 tokens": 32, "64 tokens": 64, "first 255 tokens": 255}.items():
        usable = [i for i, ids in enumerate(documents) if length == 255 or len(ids) >= length]
        yield name, [tokenizer.decode(documents[i][:length]) for i in usable], truth[usable]


def measured(tokenizer, log_odds: LogOdds, texts: list[str], labels: list[int]) -> dict[str, str]:
    """Accuracy and expected calibration error on beginnings of 4,000 test reviews."""
    every, found = max(1, len(texts) // 4000), {}
    for name, pieces, truth in beginnings(tokenizer, texts[::every], labels[::every]):
        positive = 1 / (1 + np.exp(-log_odds(pieces)))
        right = (positive > 0.5) == truth
        bins = np.minimum((positive * 10).astype(int), 9)
        error = np.abs(np.bincount(bins, weights=positive - truth)).sum() / len(truth)
        found[f"test accuracy, {name}"] = share_with_interval(right)
        found[f"expected calibration error (10 bins), {name}"] = f"{error:.3f}"
        found[f"P(positive) above 0.97, {name}"] = f"{(positive > 0.97).mean():.1%}"
    return found


def beside(tokenizer, rival: LogOdds, gold: LogOdds, texts: list[str], labels: list[int]) -> dict[str, str]:
    """Accuracy of the rival on beginnings of the test reviews, and the gold reward's less that on the same reviews. About
    800,000 tokens of each length: of short beginnings those of every review.
    """
    found = {}
    for name, pieces, truth in beginnings(tokenizer, texts, labels):
        every = max(1, len(pieces) * int(re.findall(r"\d+", name)[0]) // 800_000)
        pieces, truth = pieces[::every], truth[::every]
        right = [(log_odds(pieces) > 0) == truth for log_odds in (rival, gold)]
        gap = right[1].astype(float) - right[0]
        found[f"test accuracy, {name}"] = share_with_interval(right[0])
        found[f"accuracy of this classifier less the trunk's, {name}"] = (
            f"{gap.mean():+.4f} ± {1.96 * gap.std(ddof=1) / math.sqrt(len(gap)):.4f} (95 %, paired, n = {len(gap)} reviews)"
        )
    return found


def share_with_interval(right: np.ndarray) -> str:
    """A share of reviews with its 95 % interval."""
    interval = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / len(right))
    return f"{right.mean():.3f} ± {interval:.3f} (95 %, n = {len(right)} reviews)"
