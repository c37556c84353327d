"""What is done to every loaded model: no missing weights, no dropout, one kernel for GELU, a known output layer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.common.errors import UserError, first_line
from suite.data.tokenizers import load_tokenizer
from suite.policies.model_config import check_vocabulary, load_config


def load_pretrained(
    loader: Any, folder: Path | str, what: str, *, dtype: torch.dtype = torch.float32, tokenizer: Path | str | None = None,
    needs_eos: bool = True,
) -> tuple[Any, Any]:  # fmt: skip
    """A model by a class of transformers and its tokenizer, which may lie in a folder of its own. No code of theirs is run.

    Raises:
        UserError: The folder is not `what`, or weights are missing, misshapen (transformers would go on with random ones) or
            not finite, or the tokenizer has more tokens than the model.
    """
    config, found = load_config(folder), load_tokenizer(tokenizer or folder, needs_eos=needs_eos)
    try:
        model, loading = loader.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # a stranger's files: anything may be wrong with them
        raise UserError(f"{folder}: not {what} with its weights ({type(error).__name__}: {first_line(error)})") from error
    if absent := [*loading["missing_keys"], *loading["mismatched_keys"]]:
        raise UserError(f"{folder}: weights are missing or misshapen ({', '.join(map(str, sorted(absent)[:3]))}, …)")
    check_finite(model, folder)
    check_vocabulary(config, found, str(folder))
    return model, found


def check_finite(model: nn.Module, folder: Path | str) -> None:
    """Raise a UserError that names weights which are not finite."""
    if broken := [name for name, weight in model.named_parameters() if not _finite(weight)]:
        raise UserError(f"{folder}: weights are not finite ({', '.join(broken[:3])}{', …' if len(broken) > 3 else ''})")


@torch.no_grad()
def _finite(weight: Tensor) -> bool:
    return not weight.numel() or all(map(math.isfinite, torch.stack(weight.aminmax()).tolist()))


@torch.no_grad()
def head_is_linear(model: Any) -> bool:
    """Whether logits are weight · last hidden state + bias and nothing after it (no soft cap, no scaling, no adapter).

    Tried, not guessed: the output layer is made to answer -100 … 100, which the model must return unchanged.
    """
    seen: list[Tensor] = []
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False

    def answer(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen.extend((inputs[0], torch.linspace(-100, 100, output.numel(), dtype=output.dtype).view_as(output).to(output)))
        return seen[1]

    ids = torch.zeros(1, 2, dtype=torch.long, device=head.weight.device)
    hook = head.register_forward_hook(answer)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
        states = getattr(model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None)
    finally:
        hook.remove()
    return bool(seen) and states is not None and torch.equal(logits, seen[1]) and torch.allclose(states, seen[0])


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Within it, on a CPU, linear layers multiply by copies of their weights in the order in which oneDNN reads them: a fifth
    less time where the same weights meet few rows at a time, as in sampling. Not for gradients.
    """
    from transformers.pytorch_utils import Conv1D

    lower = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    layers: list[Any] = [
        m for m in model.modules()
        if type(m) in (nn.Linear, Conv1D) and m.weight.device.type == "cpu" and "forward" not in vars(m)
        and (lower or m.weight.dtype) in _packable()
    ]  # fmt: skip
    for layer in layers:
        dtype = lower or layer.weight.dtype
        weight = layer.weight.detach().to(dtype)
        copied = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous() if type(layer) is Conv1D else weight)
        layer.forward = partial(_by_packed, copied, None if layer.bias is None else layer.bias.detach().to(dtype))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _packable() -> list[torch.dtype]:
    """Arithmetics in which oneDNN multiplies here."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return []
    return [torch.float32] + [torch.bfloat16] * bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _by_packed(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs.to(weight.dtype), weight, bias, "none", [], "")


def disable_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout probability to 0, in modules and in the configuration (attention kernels read it there)."""
    names = ("dropout", "attention_dropout", "attn_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop")
    for owner in (*model.modules(), getattr(model, "config", None)):
        for name in ("p", *names) if isinstance(owner, nn.Dropout) else names:
            if isinstance(getattr(owner, name, None), float):
                setattr(owner, name, 0.0)
    return model


def fuse_gelu(model: nn.Module) -> nn.Module:
    """GPT-2's GELU (tanh approximation) in one kernel instead of eight: the same function, a sixth of a training pass less."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model
