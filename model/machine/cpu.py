"""Settings of the process that make PyTorch faster on a CPU.

They hold for the whole process, so that whoever loads a scorer on a CPU makes them once.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

# float32 products of this depth lose about 1e-6 of the result's size, bfloat16 ones 1e-2.
MAX_RELATIVE_ERROR = 1e-5

# A form must be this much faster, so that the choice is the same at every start.
MIN_SPEED_UP = 1.25
NUM_TIMINGS = 7  # of which the fastest counts: other processes only add

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
FIRST_KEPT_BLOCK_BYTES = 128 << 10  # glibc's own default of both
MAX_KEPT_BLOCK_BYTES = 32 << 20
MAX_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 32 MiB in place of returning them.

    PyTorch frees every intermediate result. Returned to the system, each costs a page fault per
    4 KiB when the next one is allocated: 300,000 for 16 KB of text through the demo model, and
    30 % of its time. All threads share one heap: glibc returns those that it makes for further
    threads whatever these limits say. Does nothing where the C library is not glibc.
    """
    _set_allocator(kept_block_bytes=MAX_KEPT_BLOCK_BYTES, kept_bytes=MAX_KEPT_BYTES)


def return_freed_memory() -> None:
    """Let the C library return freed blocks to the system at once, as at the start of a process.

    With every block that is freed it keeps larger ones. While weights are quantized, one after the
    other, their intermediate results would pile up between the weights that stay: in a model of
    417 MB as much as half of that. Does nothing where the C library is not glibc.
    """
    _set_allocator(kept_block_bytes=FIRST_KEPT_BLOCK_BYTES, kept_bytes=FIRST_KEPT_BLOCK_BYTES)


def _set_allocator(*, kept_block_bytes: int, kept_bytes: int) -> None:
    with contextlib.suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, kept_block_bytes)
        set_option(M_TRIM_THRESHOLD, kept_bytes)
        set_option(M_ARENA_MAX, 1)


def use_onednn_for_float32() -> bool:
    """Send float32 products through oneDNN where that keeps their precision.

    A row's result has the same bits there on one core and on two, among few rows and among many;
    with MKL it has not. On an AMD EPYC it is twice as fast as MKL besides, on an Intel Xeon alike.

    The setting allows oneDNN to compute in bfloat16. On a CPU without matrix tiles (AMX) it does
    not, and runs its AVX-512 float32 code. Where it computes in bfloat16, this check sees it and
    takes the setting back. Returns whether it stayed: never where PyTorch has no oneDNN.
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
    """Whether this CPU multiplies bfloat16 more slowly than float32, the conversions included.

    So do those without AVX512-BF16, and Intel's with it but without AMX; AMD's are four times as
    fast.
    """
    x, weight = _factors()
    narrow, narrow_weight = x.bfloat16(), weight.bfloat16()
    wide_s, narrow_s = _fastest(
        lambda: F.linear(x, narrow_weight.float()), lambda: F.linear(narrow, narrow_weight)
    )
    return wide_s * MIN_SPEED_UP <= narrow_s


def _factors() -> tuple[Tensor, Tensor]:
    """Float32 rows and a weight as large as those of a small model's layer: 0.3 GFLOP."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((256, 512), (1024, 512))
    x, weight = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, weight


def _fastest(*forms: Callable[[], Tensor]) -> list[float]:
    """Return the shortest time of each form on one core, in seconds; they take turns.

    On one, since short passes run side by side, and since a core that is busy with something else
    would slow what all cores share.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = [[_seconds(form) for form in forms] for _ in range(NUM_TIMINGS + 1)]
    finally:
        torch.set_num_threads(num_threads)
    return [min(of_form) for of_form in zip(*times[1:], strict=True)]


def _seconds(form: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    form()
    return time.perf_counter() - began


def _relative_error() -> float:
    """The error of a single and of a batched float32 product, as a share of the result's size."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 128, 512, generator=generator)
    b = torch.randn(4, 512, 256, generator=generator)
    exact = a.double() @ b.double()
    batched = (torch.bmm(a, b) - exact).abs().max()
    single = (torch.mm(a[0], b[0]) - exact[0]).abs().max()
    return float(max(batched, single) / exact.std())
