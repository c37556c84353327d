"""The learned reward of RLHF: a scalar head on the reference model, fitted to preferences by the Bradley-Terry loss."""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from suite.common.errors import UserError
from suite.common.ranks import full_state, world_size
from suite.data.batching import different, length_batches
from suite.data.preference_data import PreferencePair
from suite.policies.model_config import context_of
from suite.policies.sharding import copy_weights, in_shares, sharded
from suite.policies.surgery import disable_dropout, fuse_gelu, load_pretrained

TOKENS_PER_BATCH = 8192
SCALE_FILE = "reward_scale.json"


@dataclass(frozen=True)
class RewardScale:
    """Rewards are reported as (raw - mean) / std: mean 0 and standard deviation 1 on the different completions of the pairs,
    which are samples of the reference where a study draws them, and people's answers where they are given.
    """

    mean: float = 0.0
    std: float = 1.0


class RewardModel:
    """A `RewardFunction` of texts: prompt and completion are joined, tokenised and read at the last token.

    It is trained through the same text, so that it never sees tokens that it was not trained on. The model is a Hugging Face
    sequence classification model with one label (head `score`).
    """

    def __init__(self, model: Any, tokenizer: Any, scale: RewardScale | None = None) -> None:
        self.model: Any = fuse_gelu(disable_dropout(model)).eval()
        self.tokenizer, self.scale = tokenizer, scale or RewardScale()
        self.whole: Any = None  # of a model whose weights are sharded over several devices (`suite.policies.sharding`)
        self.tokens_trained = 0

    @classmethod
    def from_policy(cls, policy: Any) -> Self:
        """The policy's trunk under a new head that gives 0 everywhere, so that the first loss is log 2."""
        from transformers import AutoModelForSequenceClassification

        config = copy.deepcopy(policy.model.config)
        config.num_labels, config.pad_token_id = 1, policy.tokenizer.eos_token_id
        model = AutoModelForSequenceClassification.from_config(config)
        copy_weights(policy.model.base_model, model.base_model)
        torch.nn.init.zeros_(model.score.weight)
        return cls(model.to(policy.device, policy.dtype), policy.tokenizer).shared()

    def shared(self) -> Self:
        """The model itself, of which each rank keeps a share of the weights where several make a run."""
        if world_size() > 1:
            self.whole = sharded(self.model)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def raw(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """Raw rewards in one batch, with gradient, before centring and scaling. Shape (len(prompts),), float32.

        A text that is given several times passes through the model once.
        """
        texts = [p + c for p, c in zip(prompts, completions, strict=True)]
        first, which = different(texts)
        texts = [texts[i] for i in first]
        limit = context_of(self.model.config)
        encoded = self.tokenizer(texts, add_special_tokens=False, truncation=limit is not None, max_length=limit)["input_ids"]
        rows = [torch.tensor(ids or [self.tokenizer.eos_token_id or 0]) for ids in encoded]
        if torch.is_grad_enabled():
            self.tokens_trained += sum(map(len, rows))
        (rewards,) = in_shares(self.whole, self._of_tokens, rows)
        return rewards[which].to(torch.promote_types(rewards.dtype, torch.float32))

    def _of_tokens(self, rows: Sequence[Tensor]) -> tuple[Tensor]:
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(self.device)
        # padding on the right comes after all that is read: no attention mask is needed
        states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = states[torch.arange(len(rows), device=self.device), lengths - 1]
        return (self.model.score(last).squeeze(-1),)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """Rewards in standard deviations from the mean of the pairs' completions (`RewardScale`)."""
        return list(self.logits(prompts, completions) / self.scale.std)

    @torch.inference_mode()
    def logits(self, prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        """Rewards in the units of the loss, in which a difference is a log-odds [nats]; 0 is the mean of the completions of the
        pairs. Shape (len(prompts),), float64.
        """
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        values = np.empty(len(lengths))
        for index in length_batches(lengths, lambda longest: TOKENS_PER_BATCH // max(1, longest)):
            values[index] = self.raw([prompts[i] for i in index], [completions[i] for i in index]).cpu()
        return values - self.scale.mean

    def save(self, directory: Path) -> None:
        """Write a `save_pretrained` folder and the scale."""
        self.model.save_pretrained(directory, state_dict=full_state(self.model))
        self.tokenizer.save_pretrained(directory)
        (Path(directory) / SCALE_FILE).write_text(json.dumps(asdict(self.scale)))

    @classmethod
    def load(cls, directory: Path | str, *, device: str = "cpu") -> Self:
        """Read what `save` wrote, or any one-label sequence classification model (scale 0, 1); else a `UserError`."""
        from transformers import AutoModelForSequenceClassification

        model, tokenizer = load_pretrained(AutoModelForSequenceClassification, directory, "a reward model", needs_eos=False)
        if model.config.num_labels != 1 or not hasattr(model, "score"):
            raise UserError(f"{directory}: expected a model with one label and a head called score")
        return cls(model.to(device), tokenizer, scale_in(Path(directory))).shared()


def scale_in(folder: Path) -> RewardScale:
    """The scale beside a reward model; 0 and 1 where there is none. Raises UserError if it is no scale."""
    path = folder / SCALE_FILE
    if not path.exists():
        return RewardScale()
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        scale = RewardScale(mean=float(given["mean"]), std=float(given["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected an object with mean and std ({error})") from error
    if not (math.isfinite(scale.mean) and math.isfinite(scale.std) and scale.std > 0):
        raise UserError(f"{path}: expected a finite mean and a std above 0, got {scale.mean} and {scale.std}")
    return scale


def texts_of(pairs: Sequence[PreferencePair]) -> tuple[list[str], list[str], list[str]]:
    """Prompts, chosen and rejected texts."""
    return [p.chosen.prompt.text for p in pairs], [p.chosen.text for p in pairs], [p.rejected.text for p in pairs]


def ranked(model: RewardModel, pairs: Sequence[PreferencePair]) -> pd.DataFrame:
    """How the reward model ranks pairs, one row each.

    Returns:
        `prompt_id`; `gold_gap` = |gold difference|; `difference` of the raw rewards, chosen less rejected (a logit); `right`: 1
        where it is positive, ½ where it is 0; and where pairs have them, their `rating` and `domain`.
    """
    prompts, chosen, rejected = texts_of(pairs)
    difference = model.logits(prompts, chosen) - model.logits(prompts, rejected)
    gaps = np.abs([p.chosen_reward - p.rejected_reward for p in pairs])
    table = pd.DataFrame({"prompt_id": [p.chosen.prompt.id for p in pairs], "gold_gap": gaps, "difference": difference})
    about: dict[str, list[Any]] = {"rating": [p.rating for p in pairs], "domain": [p.domain for p in pairs]}
    known = {name: values for name, values in about.items() if any(value not in (None, "") for value in values)}
    return table.assign(right=np.where(difference == 0, 0.5, difference > 0), **known)
