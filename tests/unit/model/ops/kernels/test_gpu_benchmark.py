"""The cases of the benchmark of the kernels run, and find both backends in agreement."""

import pytest
import torch

from bench import gpu

SHAPE = gpu.Shape(
    lengths=(5, 0, 40),
    hidden=64,
    intermediate=96,
    heads=2,
    window=32,
    chunk=8,
    dtype=torch.float16,
)
NAMES = [name for name, _ in gpu.cases(SHAPE, torch.device("cpu"))]


@pytest.mark.parametrize("name", NAMES)
def test_backends_agree(name, device):
    if name == "fp8_linear" and not gpu.has_fp8_products(device):
        pytest.skip("this GPU multiplies no fp8")
    assert gpu.agrees(dict(gpu.cases(SHAPE, device))[name])


def test_disagreement_is_seen():
    assert not gpu.agrees(lambda backend: lambda: torch.tensor(float(backend == "torch")))
