"""Which form of the operations runs where."""

import pytest
import torch

from model import Scorer
from model.errors import DeviceUnavailable
from model.ops.backend import choose_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu_of(monkeypatch):
    """Have PyTorch report a GPU of this compute capability."""

    def report(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    return report


@pytest.mark.parametrize(
    ("capability", "backend"),
    [((7, 5), "torch"), ((8, 0), "triton"), ((8, 9), "triton"), ((9, 0), "triton")],
    ids=["T4", "A100", "L4", "H100"],
)
def test_auto_takes_triton_where_it_uses_tensor_cores(capability, backend, gpu_of):
    gpu_of(*capability)
    assert choose_backend("auto", CUDA) == backend


def test_auto_takes_torch_on_a_cpu():
    assert choose_backend("auto", CPU) == "torch"


def test_torch_runs_everywhere(gpu_of):
    gpu_of(9, 0)
    assert choose_backend("torch", CUDA) == "torch"


def test_triton_without_its_gpu_is_refused(gpu_of):
    gpu_of(7, 5)
    for device in (CPU, CUDA):
        with pytest.raises(DeviceUnavailable, match=r"capability 8\.0 or newer; use auto or torch"):
            choose_backend("triton", device)


def test_scorer_tells_its_backend_and_refuses_another(tiny_checkpoint):
    assert Scorer.load(str(tiny_checkpoint), kernels="auto").info.backend == "torch"
    with pytest.raises(DeviceUnavailable, match="kernels triton on device cpu"):
        Scorer.load(str(tiny_checkpoint), kernels="triton")
