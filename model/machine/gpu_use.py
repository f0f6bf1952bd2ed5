"""Asks NVML for the memory and the utilization of one GPU, where its Python package is installed.

NVML counts all GPUs of the machine, and PyTorch only those of CUDA_VISIBLE_DEVICES. So the GPU is
found by its UUID. Asking takes microseconds and does not wait for the GPU.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class GpuReading(NamedTuple):
    """The use of a GPU by all processes."""

    used_bytes: int
    total_bytes: int
    utilization: float | None
    """Share of the last sample period in which a kernel ran, 0 to 1; None where it is unknown."""


def gpu_reader(device: torch.device) -> Callable[[], GpuReading | None]:
    """Return a function that reads the use of `device`; it gives None for a CPU or without NVML."""
    if device.type != "cuda":
        return lambda: None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return lambda: None
    return reader_of(nvml, f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def reader_of(nvml: Any, uuid: str) -> Callable[[], GpuReading | None]:
    """Return a function that reads the GPU of `uuid` by `nvml`, the module of nvidia-ml-py."""
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return lambda: None

    def read() -> GpuReading | None:
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError:
            return None
        return GpuReading(memory.used, memory.total, _utilization(nvml, handle))

    return read


def _utilization(nvml: Any, handle: Any) -> float | None:
    # A part of a GPU (MIG) has memory of its own but no utilization.
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except nvml.NVMLError:
        return None
