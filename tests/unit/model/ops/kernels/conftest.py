"""Kernels against their references: in Triton's interpreter on a CPU, as they are on a GPU.

`test_kernels_in_interpreter.py` starts the interpreter, which must be chosen before triton is
imported; without it these tests need a GPU and carry the marker `gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor

IS_INTERPRETED = triton.knobs.runtime.interpret

# Half a step of the type for each of a few roundings, of values up to 4.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}

# Less than the rows of a tile for many rows, so that some row of each is compared.
COMPARED_STEP = 61

# More than any block of a kernel is wide, so that a read out of bounds finds NaN.
GUARD = 4096


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder as what they need here."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if IS_INTERPRETED:
            # NumPy, which computes there, warns of infinities where a GPU does not.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        else:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if IS_INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def fresh_buffers_are_nan() -> Iterator[None]:
    """Have `torch.empty` hold NaN, so that what a kernel leaves out shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def randn(device: torch.device) -> Callable[..., Tensor]:
    """Make normal numbers with NaN before and behind them in memory; the seed is fixed."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        values = torch.randn(*shape, generator=generator) * scale
        buffer = torch.full((values.numel() + 2 * GUARD,), float("nan"), dtype=dtype)
        buffer[GUARD : GUARD + values.numel()] = values.flatten()
        return buffer.to(device)[GUARD : GUARD + values.numel()].view(shape)

    return make


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Compare with a reference, within what the type of the result rounds to."""

    def compare(ours: Tensor, reference: Tensor) -> None:
        assert ours.dtype == reference.dtype
        tolerance = TOLERANCE[ours.dtype]
        torch.testing.assert_close(ours.cpu(), reference.cpu(), rtol=tolerance, atol=tolerance)

    return compare


@pytest.fixture(scope="session")
def compared_rows() -> Callable[[int], Tensor]:
    """Choose rows of a wide product to compare: a reference of thousands takes a minute on a CPU.

    Rows are independent of each other. The caller makes sure that no other row holds NaN.
    """

    def choose(num_rows: int) -> Tensor:
        return torch.cat((torch.arange(0, num_rows, COMPARED_STEP), torch.tensor([num_rows - 1])))

    return choose
