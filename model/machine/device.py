"""Finds the device of a name, and recognises the errors of a device without memory."""

import contextlib
from collections.abc import Iterator

import torch

from model.errors import DeviceUnavailable, OutOfMemory

# Signs of missing memory besides `torch.OutOfMemoryError`: from the CPU's allocator, from the CUDA
# runtime and Triton when they load or launch a kernel, and from cuBLAS when it starts.
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def find_device(name: str) -> torch.device:
    """Return the device named auto, cpu, cuda or cuda:N; a GPU always with its number.

    Raises:
        DeviceUnavailable: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"device {name}: unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceUnavailable(f"device {name}: not supported; use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"device {name}: PyTorch finds no usable GPU; use cpu, or check the driver"
        )
    number, num_gpus = device.index or 0, torch.cuda.device_count()
    if number >= num_gpus:
        raise DeviceUnavailable(
            f"device {name}: this machine has {num_gpus} GPUs; use cuda:0 to cuda:{num_gpus - 1}"
        )
    return torch.device("cuda", number)


def use_device(device: torch.device) -> None:
    """Make the settings of the whole process for a model on `device`, a GPU with its number."""
    torch.cuda.set_device(device)
    # By default cuBLAS may add partial sums in the type of the result, which costs digits.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    # A variable of the environment, which some images set, gives float32 products 10-bit mantissas.
    torch.backends.cuda.matmul.allow_tf32 = False


def on_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Make a GPU the current one in the block of a `with`; do nothing for a CPU.

    Triton launches on the current device, wherever the tensors are. Each thread has its own, and
    loading another model may change it.
    """
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def translated_memory_errors() -> Iterator[None]:
    """Turn every error that means missing memory into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
            raise
        raise OutOfMemory(str(error)) from error
