"""Will it fit? Memory of each run, estimated before it starts from the model's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psutil

from suite.errors import UserError
from suite.policies.sampling import ROWS_PER_BATCH, TOKENS_PER_BATCH
from suite.runs.run_store import RunSpec

SHORT_PROMPT = 8
GIB = 2**30
LOGITS = 0.7 * GIB
"""Arrays over the vocabulary while scoring (`suite.evaluation.reward_kl.LOGITS_PER_BATCH`)."""
PROCESS = 0.6 * GIB
"""Python with torch and transformers."""
CUDA_HOST = 2 * GIB
"""CUDA's own on the host; not measured."""
SAVED = 2.2
"""Activations beyond the formula's: norms, rotary embeddings and softmax are computed in float32."""
FRAGMENTS = {"cpu": 1.5, "cuda": 1.1}
"""What the allocator holds beyond what is in use; with both, fine-tuning SmolLM2-135M on a CPU (6.3 GiB measured) comes to 6.
That of CUDA was not measured."""
DRAWN = ("prompts", "completions", "evaluation", "answers")
"""Stages that sample."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on."""

    parameters: int
    in_linear: int
    """Σ (inputs + outputs) over linear layers but the output layer: adapters of rank r have r times as many weights."""
    layers: int
    hidden: int
    heads: int
    key_values: int
    """Width of keys and values together, of one layer."""
    vocabulary: int


@lru_cache(maxsize=8)
def shape_of(folder: str) -> Shape | None:
    """Of a causal language model's folder, without its weights; None if it is none that transformers knows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, AttributeError):
        return None
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
    heads = getattr(config, "num_attention_heads", None)
    if not heads or not getattr(config, "hidden_size", None):
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()), in_linear=sum(sum(m.weight.shape) for m in linear),
        layers=config.num_hidden_layers, hidden=config.hidden_size, heads=heads,
        key_values=2 * (getattr(config, "num_key_value_heads", None) or heads) * width, vocabulary=config.vocab_size,
    )  # fmt: skip


def memory_of(spec: RunSpec) -> float | None:
    """Bytes that a run needs at its peak, on the device that holds the model; None where nothing is known or no model is used.

    Weights, gradients, the optimizer's state, and the larger of activations (Korthikanti et al. 2022, arXiv:2205.05198, eq. 2,
    twice in float32; the attention scores on a CPU alone, a GPU does not keep them) with one array of logits of the completion,
    and the cache of keys and values while sampling.
    """
    if spec.stage in ("texts", "pairs") or not spec.where.get("reference"):
        return None
    shape = shape_of(spec.where["reference"])
    if shape is None:
        return None
    config = spec.config
    weights = 4 * shape.parameters
    prompt, new = _lengths(spec)
    on_cpu = not spec.where.get("device", "cpu").startswith("cuda")
    fragments = FRAGMENTS["cpu" if on_cpu else "cuda"]
    most = min(ROWS_PER_BATCH, TOKENS_PER_BATCH * (1 if on_cpu else 4) // (prompt + new) + 1)
    of_row = 4 * shape.layers * shape.key_values * (prompt + new) + 8 * shape.vocabulary
    if spec.stage not in ("sft", "sft_on_answers", "reward_model", "train"):
        rows = min(most, int(config.get("num_samples", 1)) * _prompts(spec)) if spec.stage in DRAWN else 0
        models = 1 if spec.stage == "completions" or config.get("snapshot", 0) is None else 2
        return PROCESS + fragments * (models * weights + rows * of_row + LOGITS)
    settings = config["config"]
    optim: Mapping[str, Any] = settings.get("optim", {})
    rank, on_policy = config.get("lora_rank", 0), "samples_per_step" in settings
    trained = rank * shape.in_linear if rank else shape.parameters
    state = 8 if on_policy else 4
    copies = 1 if spec.stage.startswith("sft") else 3 if "reward_model" in spec.inputs else 2
    whole = weights * copies + trained * (4 + state) + (4 * trained if rank else 0)
    length, of_numbers = prompt + new, 1 if optim.get("precision") == "bfloat16" else 2
    scores = 5 * shape.heads * length / shape.hidden if on_cpu else 0.0
    per_layer = length * shape.hidden * (34 + scores) * of_numbers * SAVED
    sides = 1 if spec.stage.startswith("sft") or on_policy else 2
    passes = optim.get("micro_batch_size", 1) * sides * (per_layer * shape.layers + 4 * of_numbers * new * shape.vocabulary)
    return PROCESS + fragments * (whole + max(passes, most * of_row if on_policy else 0.0))


def host_memory_of(spec: RunSpec) -> float | None:
    """Bytes that a run needs on the host; None where nothing is known.

    On a CPU all of it. With a GPU what passes through: one model at a time, read in float32 before it moves.
    """
    needed = memory_of(spec)
    if needed is None or not spec.where.get("device", "cpu").startswith("cuda"):
        return needed
    shape = shape_of(spec.where["reference"])
    return None if shape is None else PROCESS + CUDA_HOST + 4 * shape.parameters


def _lengths(spec: RunSpec) -> tuple[int, int]:
    """Tokens of a prompt and of a completion, at most."""
    for known in (spec, *spec.inputs.values()):
        if "max_prompt_tokens" in known.config:
            return known.config["max_prompt_tokens"], known.config["max_new_tokens"]
    if "max_tokens" in spec.config:
        return 0, spec.config["max_tokens"]
    for known in (spec, *spec.inputs.values(), *(i for s in spec.inputs.values() for i in s.inputs.values())):
        if "max_new_tokens" in known.config:
            return SHORT_PROMPT, known.config["max_new_tokens"]
    return SHORT_PROMPT, 64


def _prompts(spec: RunSpec) -> int:
    if "prompts" in spec.config:
        first, last = spec.config["prompts"]
        return last - first
    return max([s.config["size"] for s in spec.inputs.values() if "size" in s.config] or [ROWS_PER_BATCH])


def available_memory(device: str) -> float:
    """Bytes that are free on the device."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def what_cannot_fit(specs: Sequence[RunSpec], *, workers: int) -> str | None:
    """Which run will run out of memory, `workers` of them at a time, and what to do; None if all fit."""
    for kind, size_of in (("device", memory_of), ("host", host_memory_of)):
        sizes = [(size, spec) for spec in specs if (size := size_of(spec)) is not None]
        if not sizes:
            continue
        size, spec = max(sizes, key=lambda pair: pair[0])
        device = spec.where.get("device", "cpu") if kind == "device" else "cpu"
        free, needed = available_memory(device), size * max(1, workers)
        if needed <= free:
            continue
        advice = []
        if kind == "device" and "optim" in spec.config.get("config", {}):
            advice.append("a smaller micro-batch (--micro-batch-size)")
        if kind == "device" and spec.stage == "train" and not spec.config.get("lora_rank", 1):
            advice.append("adapters (--lora-rank 16)")
        if workers > 1:
            advice.append("fewer processes (--workers 1)")
        return (
            f"{spec.stage} {spec.title!r} needs about {needed / GIB:.1f} GiB ({workers} at a time) and {free / GIB:.1f} GiB of "
            f"{device} memory are free. Try {'; '.join([*advice, 'a smaller model'])}"
        )
    return None


def refuse_what_cannot_fit(specs: Sequence[RunSpec], *, workers: int) -> None:
    """Stop before anything is computed that will run out of memory.

    Raises:
        UserError: See `what_cannot_fit`.
    """
    if problem := what_cannot_fit(specs, workers=workers):
        raise UserError(problem)
