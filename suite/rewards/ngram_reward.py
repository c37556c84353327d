"""A reward of texts that is no neural network: logistic regression on the words, pairs and triples of words that occur."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from suite.common.errors import UserError
from suite.common.files import write_atomically

WEIGHTS = "ngrams.safetensors"
LONGEST = 3
WORD = re.compile(r"[\w']+|[!?]")


class NgramReward:
    """P(positive) of prompt + completion: σ(bias + Σ weights of the different n-grams that occur), n from 1 to 3.

    Words are in lower case, marks of exclamation and question count as words, and an n-gram counts once however often it occurs
    (Wang and Manning 2012, *Baselines and Bigrams*, sec. 2). N-grams are kept as 32-bit hashes, so that the file holds no text.
    """

    def __init__(self, ngrams: NDArray[np.uint32], weights: NDArray[np.floating], bias: float) -> None:
        self.ngrams, self.weights, self.bias = ngrams, weights, bias
        self.weight_of = dict(zip(ngrams.tolist(), weights.astype(float).tolist(), strict=True))

    def log_odds(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Log P(positive)/P(negative) in nats, float64. Shape (len(prompts),)."""
        known = self.weight_of
        return np.array([
            self.bias + sum(known.get(ngram, 0.0) for ngram in sorted(ngrams_of(prompt + completion)))
            for prompt, completion in zip(prompts, completions, strict=True)
        ])  # fmt: skip

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float]:
        """P(positive) in [0, 1], float64."""
        return (1 / (1 + np.exp(-self.log_odds(prompts, completions)))).tolist()

    def save(self, directory: Path) -> None:
        """Write the weights, in half precision, into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        tables: dict[str, np.ndarray] = {
            "ngrams": self.ngrams,
            "weights": self.weights.astype(np.float16),
            "bias": np.array([self.bias]),
        }
        write_atomically(directory / WEIGHTS, partial(save_file, tables))

    @classmethod
    def load(cls, directory: Path | str) -> NgramReward:
        """Read what `save` wrote. Raises UserError if it cannot be read, or weights are not finite."""
        try:
            tables = load_file(Path(directory) / WEIGHTS)
            ngrams, weights, bias = tables["ngrams"], tables["weights"], float(tables["bias"][0])
        except (OSError, KeyError, IndexError, SafetensorError) as error:
            raise UserError(f"{directory}: {WEIGHTS} cannot be read as the weights of n-grams ({error!r})") from error
        if ngrams.shape != weights.shape or not (np.isfinite(weights).all() and np.isfinite(bias)):
            raise UserError(f"{directory}: {WEIGHTS} is damaged: expected one finite weight for each n-gram")
        return cls(ngrams, weights, bias)


def ngrams_of(text: str) -> set[int]:
    """Hashes (CRC-32 of UTF-8) of the different n-grams of a text."""
    words = WORD.findall(text.lower())
    spans = (words[k : k + n] for n in range(1, LONGEST + 1) for k in range(len(words) - n + 1))
    return {crc32(" ".join(span).encode()) for span in spans}
