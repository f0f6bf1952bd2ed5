"""Which form of the operations runs where."""

import subprocess
import sys

import pytest
import torch
import triton
from triton.backends.nvidia.driver import CudaDriver

from contract.settings import REPOSITORY
from model import Scorer
from model.errors import DeviceUnavailable
from model.ops import backend
from model.ops.backend import choose_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu_of(monkeypatch):
    """Have PyTorch report a GPU of this compute capability, and Triton find it."""
    monkeypatch.setattr(triton.runtime.driver, "_active", object())

    def report(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    return report


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [((7, 5), "torch"), ((8, 0), "triton"), ((8, 9), "triton"), ((9, 0), "triton")],
    ids=["T4", "A100", "L4", "H100"],
)
def test_auto_takes_triton_where_it_uses_tensor_cores(capability, chosen, gpu_of):
    gpu_of(*capability)
    assert choose_backend("auto", CUDA) == chosen


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


def test_without_triton_auto_takes_torch_and_triton_is_refused(gpu_of, monkeypatch):
    gpu_of(9, 0)
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert choose_backend("auto", CUDA) == "torch"
    with pytest.raises(DeviceUnavailable, match="Triton is not installed") as refusal:
        choose_backend("triton", CUDA)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(None, "Failed to find C compiler"), ("false", "returned non-zero exit status 1")],
    ids=["none", "without headers"],
)
@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_machine_where_triton_cannot_compile_is_named(
    kernels, compiler, reason, gpu_of, monkeypatch, tmp_path
):
    gpu_of(9, 0)
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    monkeypatch.setattr(triton.runtime.driver, "_default", None)
    # The module, which the package has an object of the same name for.
    monkeypatch.setattr(sys.modules["triton.runtime.driver"], "_create_driver", CudaDriver)
    monkeypatch.setattr(triton.knobs.nvidia, "libcuda_path", str(tmp_path))
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if compiler is None:
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setenv("CC", compiler)
    with pytest.raises(DeviceUnavailable, match=reason) as refusal:
        choose_backend(kernels, CUDA)
    assert str(refusal.value).endswith("on Debian gcc and python3-dev, or use torch")


def test_scoring_imports_no_triton(tiny_checkpoint):
    program = f"""
import sys
sys.modules["triton"] = None  # an import of it fails
from model import Scorer, ScoreRequest
scorer = Scorer.load({str(tiny_checkpoint)!r}, kernels="auto")
scorer.warm_up()
print(scorer.score([ScoreRequest(text=b"ab")])[0]["num_bytes"])
"""
    command = [sys.executable, "-c", program]
    scored = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (scored.stdout, scored.returncode) == ("2\n", 0), scored.stderr


def test_scorer_tells_its_backend_and_refuses_another(tiny_checkpoint):
    assert Scorer.load(str(tiny_checkpoint), kernels="auto").info.backend == "torch"
    with pytest.raises(DeviceUnavailable, match="kernels triton on device cpu"):
        Scorer.load(str(tiny_checkpoint), kernels="triton")
