"""The device that a model computes on: which one a name means, and how it runs out of memory."""

import contextlib
from collections.abc import Iterator

import torch

from model.errors import DeviceUnavailable, OutOfMemory

# What else than `torch.OutOfMemoryError` says so: the CPU's allocator, the CUDA runtime and Triton
# when they load or launch a kernel, and cuBLAS when it begins.
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def find_device(name: str) -> torch.device:
    """Return the device that `name` means: auto, cpu, cuda or cuda:N. A GPU has its number.

    Raises:
        DeviceUnavailable: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"device {name}: unknown; use auto, cpu or cuda") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceUnavailable(f"device {name}: not supported; use auto, cpu or cuda")
    if not torch.cuda.is_available():
        raise DeviceUnavailable(f"device {name}: PyTorch finds no usable GPU; use cpu")
    number, num_gpus = device.index or 0, torch.cuda.device_count()
    if number >= num_gpus:
        raise DeviceUnavailable(f"device {name}: there are {num_gpus} GPUs here, counted from 0")
    return torch.device("cuda", number)


@contextlib.contextmanager
def translated_memory_errors() -> Iterator[None]:
    """Turn every form of "out of memory" into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
            raise
        raise OutOfMemory(str(error)) from error
