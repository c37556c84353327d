"""Fit the learned reward of RLHF to preference pairs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from suite.common.errors import UserError
from suite.data.preference_data import PreferencePair
from suite.data.ratings import RATINGS
from suite.interfaces import Run
from suite.maths.losses import bradley_terry_loss
from suite.rewards.reward_model import RewardModel, RewardScale, ranked, texts_of
from suite.training.loop import fit
from suite.training.settings import MARGINS, RatingMargins, RewardModelConfig


def fit_reward_model(
    pairs: Sequence[PreferencePair], reference: Any, config: RewardModelConfig, run: Run
) -> tuple[RewardModel, pd.DataFrame, dict[str, Any]]:
    """A scalar head on `reference`, fitted by `suite.maths.losses.bradley_terry_loss`; the best of its snapshots by validation
    accuracy, centred and scaled on the reference's samples in `pairs`.

    Logs, per step, `accuracies` (share of training pairs ranked right) beside the loop's metrics.

    Returns:
        The model; how it ranks the held-out pairs (`suite.rewards.reward_model.ranked`); and its `accuracy` on them, the `step`
        of the snapshot kept and `accuracy_by_step`.

    Raises:
        ValueError: Too few prompts to hold some out.
    """
    check_ratings(pairs, config.rating_margins)
    training, held_out = split_by_prompt(pairs, config.validation_share, run.seed)

    loss_fn = partial(pair_losses, margin=config.margin, ratings=MARGINS[config.rating_margins])
    fit(RewardModel.from_policy(reference), training, loss_fn, config.optim, run)
    device = str(reference.device)
    kept = {int(f.name.removeprefix("step-")): f for f in sorted((run.directory / "snapshots").glob("step-*"))}
    tables = {step: ranked(RewardModel.load(folder, device=device), held_out) for step, folder in kept.items()}
    by_step = {step: float(table["right"].mean()) for step, table in tables.items()}
    step = max(by_step, key=by_step.__getitem__)
    model = RewardModel.load(kept[step], device=device)
    samples = {(c.prompt.text, c.text) for p in pairs for c in (p.chosen, p.rejected)}
    raw = np.array(model(*zip(*sorted(samples), strict=True)))
    model.scale = RewardScale(float(raw.mean()), float(raw.std()))
    return model, tables[step], {"accuracy": by_step[step], "step": step, "accuracy_by_step": by_step}


def check_ratings(pairs: Sequence[Any], margins: RatingMargins) -> None:
    """Raise a UserError if margins by rating are asked for and a pair, or an example with two answers, has no rating."""
    if margins != "none" and (unrated := sum(pair.rating is None for pair in pairs)):
        raise UserError(
            f"--rating-margins {margins}: {unrated:,} of {len(pairs):,} pairs have no rating; add a column rating "
            f"({', '.join(RATINGS)}), or use none"
        )


def pair_losses(
    model: RewardModel, pairs: Sequence[PreferencePair], *, margin: float = 0.0, ratings: Sequence[float] = MARGINS["none"]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
    """The Bradley-Terry loss of each pair, and whether it is ranked right.

    Its m is `margin` per unit of gold reward difference, and on top of it that of `ratings` by the pair's rating (0 to 3; of
    one that is not rated that of 0).
    """
    prompts, chosen, rejected = texts_of(pairs)
    both = model.raw(prompts + prompts, chosen + rejected)
    good, bad = both[: len(pairs)], both[len(pairs) :]
    margins = [margin * (p.chosen_reward - p.rejected_reward) + ratings[p.rating or 0] for p in pairs]
    return bradley_terry_loss(good, bad, margin=good.new_tensor(margins)), {"accuracies": (good > bad).float().detach()}


def split_by_prompt(
    pairs: Sequence[PreferencePair], share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs of most prompts, and of a random `share` of them.

    Raises:
        ValueError: Fewer than two prompts, or a share that is not in (0, 1).
    """
    prompts = sorted({p.chosen.prompt.id for p in pairs})
    if not 0 < share < 1 or len(prompts) < 2:
        raise ValueError(f"validation_share: expected a number in (0, 1) and at least two prompts, got {share}, {len(prompts)}")
    count = min(len(prompts) - 1, max(1, round(share * len(prompts))))
    held_out = {prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]}
    return [p for p in pairs if p.chosen.prompt.id not in held_out], [p for p in pairs if p.chosen.prompt.id in held_out]
