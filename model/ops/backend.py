"""Chooses the backend of the operations: PyTorch or the Triton kernels of this project."""

import subprocess
from importlib.util import find_spec
from typing import Literal

import torch

from model.errors import DeviceUnavailable

Backend = Literal["torch", "triton"]

KERNELS = ("auto", "triton", "torch")

# Triton emits no tensor-core code for older GPUs: on a T4 (7.5) cuBLAS is many times faster.
MIN_CAPABILITY = (8, 0)

# Tensor cores of these compute capabilities multiply e4m3 as `fp8_linear` needs it.
FP8_CAPABILITIES = ((8, 9), (9, 0))


def has_fp8_products(device: torch.device) -> bool:
    """Tell whether `device` multiplies fp8; a CPU imitates it."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) in FP8_CAPABILITIES


def choose_backend(kernels: str, device: torch.device) -> Backend:
    """Return the backend that `kernels`, one of `KERNELS`, means on `device`.

    Raises:
        DeviceUnavailable: Triton is asked for, but is not installed or has no fast code for
            `device`; or it is wanted, but cannot compile here.
    """
    assert kernels in KERNELS
    if kernels == "torch":
        return "torch"
    has_triton = find_spec("triton") is not None
    if has_triton and _has_fast_triton_code(device):
        _compile_driver()
        return "triton"
    if kernels == "auto":
        return "torch"
    if not has_triton:
        raise DeviceUnavailable(
            "kernels triton: Triton is not installed, and exists for Linux only; use auto or torch"
        )
    major, minor = MIN_CAPABILITY
    raise DeviceUnavailable(
        f"kernels triton on device {device}: needs an NVIDIA GPU of compute capability "
        f"{major}.{minor} or newer; use auto or torch"
    )


def _has_fast_triton_code(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def _compile_driver() -> None:
    """Have Triton compile its driver now: before the weights are loaded, and not at a launch.

    Raises:
        DeviceUnavailable: it cannot.
    """
    import triton

    try:
        _ = triton.runtime.driver.active
    except (RuntimeError, OSError, AssertionError, subprocess.SubprocessError) as error:
        raise DeviceUnavailable(
            f"kernels triton: Triton cannot compile here: {str(error).rstrip('.')}. Install a C "
            "compiler and the headers of Python, on Debian gcc and python3-dev, or use torch"
        ) from error
