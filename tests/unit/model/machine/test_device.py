"""The device that a name means, and the ways in which memory runs out there."""

import pytest
import torch

from model.errors import DeviceUnavailable, OutOfMemory
from model.machine.device import find_device, translated_memory_errors, use_device


@pytest.fixture
def two_gpus(monkeypatch):
    """Have PyTorch report two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_gpu_has_a_number_without_which_it_cannot_become_the_current_one(name, number, two_gpus):
    device = find_device(name)

    assert (device.type, device.index) == ("cuda", number)
    # What `torch.cuda.set_device` asks of its argument before it looks for the GPU.
    assert torch.cuda._utils._get_device_index(device) == number


def test_gpu_that_is_not_there_is_refused(two_gpus):
    with pytest.raises(DeviceUnavailable, match="device cuda:2: this machine has 2 GPUs"):
        find_device("cuda:2")


def test_gpu_multiplies_and_adds_with_all_digits(monkeypatch):
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    settings = torch.backends.cuda.matmul
    names = [f"allow_{kind}_reduced_precision_reduction" for kind in ("bf16", "fp16")]
    names.append("allow_tf32")
    before = {name: getattr(settings, name) for name in names}
    try:
        for name in names:
            setattr(settings, name, True)
        use_device(torch.device("cuda", 1))
        assert [getattr(settings, name) for name in names] == [False] * 3
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
    assert current == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["meta", "mps", "abacus"])
def test_device_of_another_kind_is_refused(name):
    with pytest.raises(DeviceUnavailable, match=f"device {name}: .* use auto, cpu, cuda"):
        find_device(name)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cuda_allocator", "python", "cpu_allocator", "cuda_runtime", "triton", "cublas"],
)
def test_memory_that_runs_out_is_one_kind_of_error(error):
    with pytest.raises(OutOfMemory), translated_memory_errors():
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="illegal"), translated_memory_errors():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
