"""What the two trainings of `train_assets.py` share: tokenising, the loop with its progress file, the card."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm

from suite.errors import UserError
from suite.files import write_atomically


def encode(tokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


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
            write_atomically(progress, lambda path, state=state: torch.save(state, path))
            saved_at = time.monotonic()
    return time.monotonic() - began


def finish(config, command: str, title: str, model, seconds: float, trained: dict, *, limit: int) -> None:
    """Store the weights in bf16 and the card with what is known before measuring."""
    size = sum(p.numel() for p in model.parameters())
    if 2 * size > limit:
        raise UserError(f"{size} parameters are {2 * size} bytes in bf16, more than {limit}; use fewer or narrower layers")
    model.to(torch.bfloat16).save_pretrained(config.out)
    defaults = asdict(type(config)())
    changed = {k: v for k, v in asdict(config).items() if v != defaults[k] and k not in ("out", "reviews")}
    flags = "".join(
        f" --no-{name}" if value is False else f" --{name.replace('_', '-')} {value}" for name, value in changed.items()
    )
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "reviews", "language_model")}
    card = {
        "data": "Large Movie Review Dataset (Maas et al. 2011), training split; measured on its test split",
        **trained,
        "command": f"`python experiments/train_assets.py {command} --reviews stanfordnlp/imdb{flags}`",
        "configuration": f"`{json.dumps(settings)}`",
        "parameters": size,
        "stored as": "safetensors, bf16",
        "training time": f"{seconds / 60:.0f} minutes, {os.cpu_count()} shared CPU cores ({platform.machine()})",
        "date": date.today().isoformat(),
    }
    lines = [f"# {title}", "", "Contains no review text; the tokenizer's vocabulary holds words and word pieces.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in card.items()), ""]
    write_atomically(config.out / "README.md", lambda path: path.write_text("\n".join(lines)))
    (config.out / "progress.pt").unlink(missing_ok=True)


def write_measurements(config, measured: dict[str, str]) -> None:
    """Append what was measured to the card."""
    card = config.out / "README.md"
    text = card.read_text() + "".join(f"| {key} | {value} |\n" for key, value in measured.items())
    write_atomically(card, lambda path: path.write_text(text))
    print(text)


def ratio_with_interval(totals: np.ndarray, counts: np.ndarray) -> str:
    ratio = totals.sum() / counts.sum()
    error = np.std(totals - ratio * counts, ddof=1) / np.sqrt(len(counts)) / counts.mean()
    return f"{ratio:.3f} ± {1.96 * error:.3f} (95 % over {len(counts)} reviews, {int(counts.sum())} tokens)"
