"""Speeds up computing on a CPU by settings of the whole process.

Loading a model makes these settings: those of memory for any device, those of products for a CPU.
"""

import contextlib
import ctypes
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

from model.ops.int8_linear import int8_linear, quantize_rows
from model.ops.timing import shortest_times

# float32 products of this depth have a relative error of about 1e-6, bfloat16 products 1e-2.
MAX_RELATIVE_ERROR = 1e-5

# float32 must be faster by this factor, so that the choice is the same at every start.
MIN_SPEED_UP = 1.25

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
FIRST_KEPT_BLOCK_BYTES = 128 << 10  # glibc's own default of both
MAX_KEPT_BLOCK_BYTES = 32 << 20
MAX_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 32 MiB instead of returning them to the system.

    PyTorch frees every intermediate result. A returned block costs a page fault per 4 KiB when it
    is allocated again: 300,000 faults for 16 KB of text through the demo model, 30 % of its time.
    With a GPU, results with `bytes` took three times as long to encode.
    All threads share one heap, because glibc ignores these limits in the heaps of other threads.
    Does nothing with another C library.
    """
    _set_allocator(kept_block_bytes=MAX_KEPT_BLOCK_BYTES, kept_bytes=MAX_KEPT_BYTES)


def return_freed_memory() -> None:
    """Make glibc return freed blocks to the system at once, as at the start of a process.

    By default it keeps larger and larger blocks. While weights are quantized, intermediate results
    would then pile up between the weights that stay: for a model of 417 MB up to half of that.
    Does nothing with another C library.
    """
    _set_allocator(kept_block_bytes=FIRST_KEPT_BLOCK_BYTES, kept_bytes=FIRST_KEPT_BLOCK_BYTES)


def _set_allocator(*, kept_block_bytes: int, kept_bytes: int) -> None:
    with contextlib.suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, kept_block_bytes)
        set_option(M_TRIM_THRESHOLD, kept_bytes)
        set_option(M_ARENA_MAX, 1)


def use_onednn_for_float32() -> bool:
    """Compute float32 products with oneDNN where that keeps their precision.

    With oneDNN the result of a row has the same bits on any number of cores and among any number
    of rows; with MKL it does not. OneDNN is twice as fast as MKL on an AMD EPYC, and as fast on an
    Intel Xeon.

    The setting allows oneDNN to compute in bfloat16. A CPU without matrix tiles (AMX) does not: it
    runs float32 code. Where it does, this function measures the error and undoes the setting.
    Returns whether the setting stayed: never where PyTorch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    if _relative_error() <= MAX_RELATIVE_ERROR:
        return True
    setting.fp32_precision = before
    return False


def is_bfloat16_slow() -> bool:
    """Tell whether bfloat16 products are slower here than float32 ones with their conversions.

    They are slower on CPUs without AVX512-BF16, and on Intel CPUs without AMX. On AMD CPUs with
    AVX512-BF16 they are four times as fast.
    """
    x, weight = _factors()
    narrow, narrow_weight = x.bfloat16(), weight.bfloat16()
    wide_s, narrow_s = shortest_times(
        [lambda: F.linear(x, narrow_weight.float()), lambda: F.linear(narrow, narrow_weight)]
    )
    return wide_s * MIN_SPEED_UP <= narrow_s


@cache
def int8_speed() -> float:
    """Return how many times as fast int8 linear layers are here as those of float32.

    Both are measured for the rows and the weight of a small model's layer, with quantizing the rows
    in int8. Scoring needs both in the form of `use_onednn_for_float32`.
    """
    x, weight = _factors()
    largest = weight.abs().amax(dim=1)
    narrow = (weight * (127 / largest)[:, None]).round().to(torch.int8)
    wide_s, narrow_s = shortest_times(
        [
            lambda: F.linear(x, weight),
            lambda: int8_linear(
                quantize_rows(x, backend="torch"), narrow, largest, backend="torch"
            ),
        ]
    )
    return wide_s / narrow_s


def _factors() -> tuple[Tensor, Tensor]:
    """Return float32 rows and a weight of the size of a small model's layer: 0.3 GFLOP."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((256, 512), (1024, 512))
    x, weight = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, weight


def _relative_error() -> float:
    """Return the larger relative error of a single and of a batched float32 product."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 128, 512, generator=generator)
    b = torch.randn(4, 512, 256, generator=generator)
    exact = a.double() @ b.double()
    batched = (torch.bmm(a, b) - exact).abs().max()
    single = (torch.mm(a[0], b[0]) - exact[0]).abs().max()
    return float(max(batched, single) / exact.std())
