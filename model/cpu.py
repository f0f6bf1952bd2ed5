"""Faster float32 matrix products on a CPU."""

import torch

# Three digits above what float32 products of this depth lose, two below what bfloat16 ones lose.
MAX_RELATIVE_ERROR = 1e-5


def use_onednn_for_float32() -> bool:
    """Send the process's float32 products through oneDNN where that keeps their precision.

    The setting allows oneDNN to compute in bfloat16. On a CPU without matrix tiles (AMX) it does
    not, and runs its AVX-512 float32 code, twice as fast as the default; where it does, this
    check sees it and takes the setting back. Returns whether it stayed.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    if _relative_error() <= MAX_RELATIVE_ERROR:
        return True
    setting.fp32_precision = before
    return False


def _relative_error() -> float:
    """The error of a single and of a batched float32 product, as a share of the result's size."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 128, 512, generator=generator)
    b = torch.randn(4, 512, 256, generator=generator)
    exact = a.double() @ b.double()
    batched = (torch.bmm(a, b) - exact).abs().max()
    single = (torch.mm(a[0], b[0]) - exact[0]).abs().max()
    return float(max(batched, single) / exact.std())
