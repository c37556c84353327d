"""What the two trainings of `train_assets.py` share: tokenising, rows of tokens, the loop with its progress file, the card."""

import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from functools import partial
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm

from suite.analysis.records import write_text
from suite.cli.options import command
from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.report.page import code


def encode(tokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def rows_of_one_epoch(documents: list[list[int]], context: int, rng: random.Random) -> np.ndarray:
    """Shuffle documents, end each with EOS, cut into rows; about half of the rows begin where a document does.

    A prompt is the beginning of a review at position 0, so the model must see beginnings there. When a row ends inside a
    document, a fair coin decides between going on mid-document and skipping to the next one.
    """
    shuffled, rows = list(documents), []
    row: list[int] = []
    rng.shuffle(shuffled)
    for left in shuffled:
        while left:
            take = context + 1 - len(row)
            row, left = row + left[:take], left[take:]
            if len(row) == context + 1:
                rows.append(row)
                row = []
                if rng.random() < 0.5:
                    left = []
    return np.array(rows, dtype=np.int32)


def optimise(config, model, optimizers, loss_of: Callable, batches: Iterator, *, steps: int, warm_up: int) -> float:
    """Linear warm-up, then linear to zero; saves its progress and resumes from it. Returns the seconds it took in all."""

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, max(0.0, (steps - step) / max(1, steps - warm_up)))

    parts = [model, *optimizers, *(torch.optim.lr_scheduler.LambdaLR(o, rate) for o in optimizers)]
    schedulers = parts[1 + len(optimizers) :]
    progress, first, seconds = config.out / "progress.pt", 0, 0.0
    if progress.exists() and (state := torch.load(progress, weights_only=True))["config"] == str(config):
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        torch.set_rng_state(state["rng"])
        first, seconds = state["step"], state["seconds"]
    began, saved_at, average = time.monotonic() - seconds, time.monotonic(), None
    bar = tqdm(islice(batches, first, steps), initial=first, total=steps, desc=config.out.name, unit="step", mininterval=10)
    for step, batch in enumerate(bar, start=first + 1):
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        bar.set_postfix(nats=f"{average:.3f}", refresh=False)
        if time.monotonic() - saved_at > 60 * config.minutes_between_saves:
            state = {
                "config": str(config), "parts": [part.state_dict() for part in parts], "step": step,
                "seconds": time.monotonic() - began, "rng": torch.get_rng_state(),
            }  # fmt: skip
            write_atomically(progress, partial(torch.save, state))
            saved_at = time.monotonic()
    return time.monotonic() - began


def finish(
    config, title: str, model, seconds: float, trained: dict, measure: Callable[[], dict[str, str]], *, limit: int
) -> None:  # fmt: skip
    """Store the weights in bf16, measure what was stored, and write the card."""
    size = sum(p.numel() for p in model.parameters())
    if 2 * size > limit:
        raise UserError(f"{size} parameters are {2 * size} bytes in bf16, more than {limit}; use fewer or narrower layers")
    model.to(torch.bfloat16).save_pretrained(config.out)
    write_card(config, title, seconds, {**trained, "parameters": size, "stored as": "safetensors, bf16"}, measure())
    (config.out / "progress.pt").unlink(missing_ok=True)


def write_card(config, title: str, seconds: float, trained: dict, found: dict[str, str]) -> None:
    """`README.md` of an asset: data, command, settings, what it took, what was measured."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "reviews", "language_model")}
    card = {
        "data": "Large Movie Review Dataset (Maas et al. 2011), training split; measured on its test split",
        **trained, "command": code(command()), "configuration": code(json.dumps(settings)),
        "training time": f"{seconds / 60:.0f} minutes, {os.cpu_count()} shared CPU cores ({platform.machine()})",
        "date": date.today().isoformat(), **found,
    }  # fmt: skip
    rows = "".join(f"| {key} | {value} |\n" for key, value in card.items())
    text = f"# {title}\n\nContains no review text.\n\n| | |\n| --- | --- |\n{rows}"
    write_text(config.out / "README.md", text)
    print(text)


def ratio_with_interval(totals: np.ndarray, counts: np.ndarray) -> str:
    ratio = totals.sum() / counts.sum()
    error = np.std(totals - ratio * counts, ddof=1) / np.sqrt(len(counts)) / counts.mean()
    return f"{ratio:.3f} ± {1.96 * error:.3f} (95 % over {len(counts)} reviews, {int(counts.sum())} tokens)"
