"""The machine at hand: cores, devices, bf16, and libraries that would talk in between. torch is imported when asked for."""

import logging
import os

from suite.common.errors import UserError, first_line


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(asked: int, device: str) -> int:
    """Processes that share the machine: as many as asked for (a negative number is a `UserError`); of 0 one per core up to 8,
    and one on a GPU.
    """
    if asked < 0:
        raise UserError(f"--workers {asked}: expected 0 (choose for me) or more")
    return asked or (min(8, available_cores()) if device == "cpu" else 1)


def usable_device(name: str) -> str:
    """The device of that name; of "auto" the GPU if there is one. One that cannot be used here is a `UserError`."""
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # of "meta" there is nothing to read
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device!r} cannot be used here: {first_line(error)}") from error
    return device


def check_gpus(gpus: int, workers: int, device: str) -> None:
    """Raise a UserError if a run cannot have so many GPUs here; on a CPU, where that is a rehearsal, it can."""
    if gpus == 1 or not device.startswith("cuda"):
        return
    import torch

    if ":" in device:
        raise UserError(f"--gpus {gpus} with --device {device}: give --device cuda; CUDA_VISIBLE_DEVICES says which")
    if gpus > (there := torch.cuda.device_count()):
        raise UserError(f"--gpus {gpus}: there are {there} here")
    if workers > 1:
        raise UserError(
            f"--gpus {gpus} with --workers {workers}: the workers of one command would share the same {gpus}; give --engine "
            "workers, and each suite work its own CUDA_VISIBLE_DEVICES"
        )


def quiet_libraries() -> None:
    """No weight-loading bars and no advice from transformers in the middle of ours; errors still come through."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def bfloat16_is_native(device: str = "cpu") -> bool:
    """Whether bf16 arithmetic is done by the hardware; where it is emulated it is slower than fp32."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.cpu._is_avx512_bf16_supported())


def instructions() -> str:
    """What this CPU's arithmetic is done with, "AVX2" or "AVX512" for example: it decides the last digits of every sum."""
    import torch

    return torch.backends.cpu.get_cpu_capability()
