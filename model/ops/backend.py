"""Which form of the operations runs: PyTorch's own or this project's Triton kernels."""

from typing import Literal

import torch

from model.errors import DeviceUnavailable

Backend = Literal["torch", "triton"]

KERNELS = ("auto", "triton", "torch")

# Triton emits no tensor-core code for older GPUs: on a T4 (7.5) cuBLAS is many times faster.
MIN_CAPABILITY = (8, 0)


def choose_backend(kernels: str, device: torch.device) -> Backend:
    """Return the backend that `kernels`, one of `KERNELS`, means on `device`.

    Raises:
        DeviceUnavailable: Triton is asked for on a device that it has no fast code for.
    """
    assert kernels in KERNELS
    if kernels == "torch":
        return "torch"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY:
        return "triton"
    if kernels == "auto":
        return "torch"
    major, minor = MIN_CAPABILITY
    raise DeviceUnavailable(
        f"kernels triton on device {device}: needs an NVIDIA GPU of compute capability "
        f"{major}.{minor} or newer; use auto or torch"
    )
