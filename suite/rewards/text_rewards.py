"""Rewards of texts: a text classifier as the gold reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from suite.common.errors import UserError
from suite.data.batching import length_batches
from suite.policies.model_config import context_of
from suite.policies.surgery import load_pretrained

TEXTS_PER_BATCH = 128


class ClassifierReward:
    """P(positive) of prompt + completion under a Hugging Face sequence classifier, read through its own tokenizer.

    This is the gold reward of the IMDb experiment (sec. 6 of Rafailov et al. 2023). The log-odds
    log P(positive) - log P(negative) [nats] say more where the probability saturates and are kept beside it.
    """

    def __init__(self, model, tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        names = {str(label).lower(): int(index) for index, label in model.config.id2label.items()}
        known = [index for name, index in names.items() if name in ("positive", "pos", "label_1")]
        if len(names) != 2 or len(known) != 1:
            raise UserError(f"classifier {model.name_or_path!r}: expected labels NEGATIVE and POSITIVE, got {sorted(names)}")
        self.positive = known[0]
        self.max_length = min(tokenizer.model_max_length, context_of(model.config) or 512)

    @torch.inference_mode()
    def log_odds(self, prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        """Log P(positive)/P(negative) in nats, float64. Shape (len(prompts),). Text beyond the classifier's context is cut."""
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        values = np.empty(len(texts))
        device = next(self.model.parameters()).device
        for index in length_batches([len(text) for text in texts], lambda longest: TEXTS_PER_BATCH):
            batch = self.tokenizer(
                [texts[i] for i in index], padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
            ).to(device)
            logits = self.model(**batch).logits.double().cpu()
            values[index] = (logits[:, self.positive] - logits[:, 1 - self.positive]).numpy()
        return values

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float]:
        """P(positive) in [0, 1], float64, so that it saturates only beyond ±36 nats of log-odds."""
        return (1 / (1 + np.exp(-self.log_odds(prompts, completions)))).tolist()

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    @classmethod
    def load(cls, directory: Path | str, *, device: str = "cpu") -> ClassifierReward:
        """Read a `save_pretrained` folder, always in fp32; one that holds no two-class text classifier is a `UserError`."""
        from transformers import AutoModelForSequenceClassification

        model, tokenizer = load_pretrained(AutoModelForSequenceClassification, directory, "a text classifier", needs_eos=False)
        return cls(model.to(device), tokenizer)
