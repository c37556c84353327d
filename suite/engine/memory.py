"""Will it fit? Memory of each run, estimated before it starts from the model's configuration alone."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from suite.common.errors import UserError
from suite.engine.rank_runs import ranks_of
from suite.engine.store import RunSpec
from suite.policies.model_config import cached_numbers, load_config
from suite.policies.sampling import rows_per_batch
from suite.policies.vllm_sampler import cache_bytes

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


@dataclass(frozen=True)
class Shape:
    """What memory depends on."""

    parameters: int
    in_linear: int  # Σ (inputs + outputs) over all linear layers but the last: adapters of rank r have r times as many weights
    layers: int
    hidden: int
    heads: int
    cached: int  # numbers that a token leaves in the cache, all layers together
    vocabulary: int


@lru_cache(maxsize=8)
def shape_of(folder: str) -> Shape | None:
    """Of a causal language model's folder, without its weights; None if it is none that transformers knows."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        config = load_config(folder)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, AttributeError, UserError):
        return None
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
    text = config.get_text_config()
    if (cached := cached_numbers(config)) is None:
        return None
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()), in_linear=sum(sum(m.weight.shape) for m in linear),
        layers=text.num_hidden_layers, hidden=text.hidden_size, heads=text.num_attention_heads, cached=cached,
        vocabulary=text.vocab_size,
    )  # fmt: skip


def memory_of(spec: RunSpec, gpus: int = 1) -> float | None:
    """Bytes that a run needs at its peak, on each device that holds the model; None where nothing is known or no model is used.

    Weights, gradients, the optimizer's state, and the larger of activations (Korthikanti et al. 2022, arXiv:2205.05198, eq. 2,
    twice in float32; the attention scores on a CPU alone, a GPU does not keep them) with one array of logits of the completion,
    and the cache of keys and values while sampling. On several GPUs all models are sharded, with gradients and the optimizer's
    state, but for the weights of the policy while it samples, or is copied before it is sharded; batches are split. An engine
    that draws stays in the process, beside every run of its study.
    """
    work = spec.work
    shape = shape_of(spec.where["model"]) if work.models else None
    if shape is None:
        return None
    on_cpu = not spec.where.get("device", "cpu").startswith("cuda")
    fragments = FRAGMENTS["cpu" if on_cpu else "cuda"]
    length = work.prompt + work.new
    weights = 4 * shape.parameters * work.models
    engine = 4 * shape.parameters + cache_bytes(on_gpu=not on_cpu) if spec.where.get("sampler") == "vllm" else 0
    most = rows_per_batch(shape.cached, max(1, length), on_gpu=not on_cpu)
    cache = 0 if engine else min(most, work.drawn) * (4 * shape.cached * length + 8 * shape.vocabulary)
    if not work.trained:
        return PROCESS + engine + fragments * (weights + cache + LOGITS)
    trained = work.adapters * shape.in_linear if work.adapters else shape.parameters
    own = trained * (4 + work.state) + (4 * trained if work.adapters else 0)
    whole = (weights + own) / gpus
    if gpus > 1:
        whole = max(whole + (4 * shape.parameters if work.drawn else 0), weights / gpus + 4 * shape.parameters)
    of_numbers = 1 if work.bfloat16 else 2
    scores = 5 * shape.heads * length / shape.hidden if on_cpu else 0.0
    per_layer = length * shape.hidden * (34 + scores) * of_numbers * SAVED
    batch = -(-work.batch // gpus)
    passes = batch * (per_layer * shape.layers + 4 * of_numbers * work.new * shape.vocabulary)
    return PROCESS + engine + fragments * (whole + max(passes, cache))


def host_memory_of(spec: RunSpec) -> float | None:
    """Bytes that a run needs on the host, if known: on a CPU all of it, with a GPU one model at a time, read in float32."""
    needed = memory_of(spec)
    if needed is None or not spec.where.get("device", "cpu").startswith("cuda"):
        return needed
    shape = shape_of(spec.where["model"])
    return None if shape is None else PROCESS + CUDA_HOST + 4 * shape.parameters


def disk_of(spec: RunSpec) -> float | None:
    """Bytes that the models that a run keeps take on disk, as `save_pretrained` writes them; None where nothing is known."""
    kept = 1 if spec.stage == "reward_model" else spec.config.get("num_snapshots")
    kept = kept or spec.config.get("config", {}).get("optim", {}).get("num_snapshots")
    shape = shape_of(spec.where["model"]) if kept and spec.work.trained else None
    if shape is None:
        return None
    trained = spec.work.adapters * shape.in_linear if spec.work.adapters else shape.parameters
    return 4 * trained * kept


def what_disk_lacks(specs: Sequence[RunSpec], root: Path) -> str | None:
    """Whether the policies that will be kept fit onto the disk of `root`, and what to do if not; None if they do."""
    needed = sum(size for spec in specs if (size := disk_of(spec)) is not None)
    place = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed <= free:
        return None
    return (
        f"the policies that are kept need about {needed / GIB:.1f} GiB and {free / GIB:.1f} GiB are free in {root}; use "
        "another --runs, or adapters (--lora-rank 16)"
    )


def _needed(spec: RunSpec, kind: str, gpus: int) -> float | None:
    """Bytes of each device, or of the host, which holds something of every rank; a CPU is both, and holds all ranks."""
    ranks, on_gpu = ranks_of(spec, gpus), spec.where.get("device", "cpu").startswith("cuda")
    size = memory_of(spec, ranks) if kind == "device" or not on_gpu else host_memory_of(spec)
    return None if size is None else size * (ranks if kind == "host" or not on_gpu else 1)


def available_memory(device: str) -> float:
    """Bytes that are free on the device."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def what_cannot_fit(specs: Sequence[RunSpec], *, workers: int, gpus: int = 1) -> str | None:
    """Which run will run out of memory, `workers` of them at a time, each on so many GPUs, and what to do; None if all fit."""
    for kind in ("device", "host"):
        sizes = [(size, spec) for spec in specs if (size := _needed(spec, kind, gpus)) is not None]
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
        if kind == "device" and spec.config.get("lora_rank") == 0:
            advice.append("adapters (--lora-rank 16)")
        if workers > 1:
            advice.append("fewer processes (--workers 1)")
        return (
            f"{spec.stage} {spec.title!r} needs about {needed / GIB:.1f} GiB ({workers} at a time) and {free / GIB:.1f} GiB of "
            f"{device} memory are free. Try {'; '.join([*advice, 'a smaller model'])}"
        )
    return None
