"""Makes a test case of each operation of a layer and of the head, by its kernel and by PyTorch.

`bench.first_gpu` times the cases; the tests of the kernels run them too. They have the sizes of
EvaByte 6.5B and random numbers: speed does not depend on the values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.evabyte.transfers import to_device
from model.ops import fp8_linear
from model.ops.backend import Backend, has_fp8_products
from model.ops.chunk_summaries import chunk_summaries
from model.ops.eva_attention import eva_attention, plan_attention
from model.ops.head_log_likelihood import head_log_likelihood
from model.ops.int8_linear import int8_linear, quantize_rows
from model.ops.rms_norm import add_rms_norm
from model.ops.rotary import rotary_frequencies, rotary_tables, rotate_keys
from model.ops.swiglu import swiglu
from model.packing import PackedLayout, lay_out

BACKENDS: tuple[Backend, ...] = ("torch", "triton")
# bfloat16 results of size 1 that were rounded at different places.
TOLERANCE = 5e-2


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of what one pass reads."""

    lengths: tuple[int, ...]
    hidden: int = 4096
    intermediate: int = 11008
    heads: int = 32
    window: int = 2048
    chunk: int = 16
    dtype: torch.dtype = torch.bfloat16

    @property
    def layout(self) -> PackedLayout:
        """The pass, cut into windows and chunks."""
        return lay_out(self.lengths, window_size=self.window, chunk_size=self.chunk)


# Makes fresh inputs for a backend and returns what is timed.
Case = Callable[[Backend], Callable[[], Any]]


def cases(shape: Shape, device: torch.device) -> Iterator[tuple[str, Case]]:
    """Yield each operation of a layer, and the head, under its name."""
    layout, dtype = shape.layout, shape.dtype
    num_tokens, head_dim = layout.num_tokens, shape.hidden // shape.heads

    def randn(*size: int, seed: int = 0) -> Tensor:
        # Tensors that are the same memory, or were the same numbers, would be read from a cache.
        generator = torch.Generator(device).manual_seed(sum(size) + seed)
        return torch.randn(size, generator=generator, device=device).to(dtype)

    def by_head(num_rows: int, seed: int = 0) -> Tensor:
        return randn(num_rows, shape.heads, head_dim, seed=seed)

    chunk_starts = torch.from_numpy(layout.chunk_starts).to(device)
    positions = torch.from_numpy(layout.positions).to(device)
    frequencies = rotary_frequencies(head_dim=head_dim, theta=1e5).to(device)
    tables = rotary_tables(positions, frequencies)

    def attention(backend: Backend) -> Callable[[], Any]:
        q, k, v = (by_head(num_tokens, seed) for seed in range(3))
        keys, values = (by_head(layout.num_past, seed) for seed in range(2))
        on_host = plan_attention(
            layout, num_heads=shape.heads, dtype=dtype, device=device, backend=backend
        )
        plan = to_device(on_host, device)
        return lambda: eva_attention(q, k, v, keys, values, plan, rotary=tables)

    def summaries(backend: Backend) -> Callable[[], Any]:
        keys, values = by_head(num_tokens), by_head(num_tokens, seed=1)
        mu = randn(shape.heads, head_dim)
        return lambda: chunk_summaries(
            keys, values, chunk_starts, chunk_size=shape.chunk, mu=mu, phi=mu, backend=backend
        )

    def norm(backend: Backend) -> Callable[[], Any]:
        x, added = randn(num_tokens, shape.hidden), randn(num_tokens, shape.hidden, seed=1)
        weight = randn(shape.hidden)
        return lambda: add_rms_norm(
            x, added, weight, eps=1e-5, add_unit_offset=True, backend=backend
        )

    def rotation(backend: Backend) -> Callable[[], Any]:
        keys = by_head(num_tokens)
        return lambda: rotate_keys(keys, *tables, backend=backend)

    def gate(backend: Backend) -> Callable[[], Any]:
        x = randn(num_tokens, shape.intermediate)
        factor = randn(num_tokens, shape.intermediate, seed=1)
        return lambda: swiglu(x, factor, backend=backend)

    def head(backend: Backend) -> Callable[[], Any]:
        hidden, weight = randn(num_tokens, shape.hidden), randn(320, shape.hidden) / 64
        ids = torch.arange(num_tokens, device=device) % 320
        return lambda: (
            head_log_likelihood(
                hidden, weight, ids, with_moments=False, top_k=0, backend=backend
            ).log_prob
        )

    def int8(backend: Backend) -> Callable[[], Any]:
        x, absmax = randn(num_tokens, shape.hidden), torch.ones(shape.hidden, device=device)
        weight = (randn(shape.hidden, shape.hidden) * 30).to(torch.int8)
        absmax = absmax / shape.hidden**0.5
        return lambda: int8_linear(
            quantize_rows(x, backend=backend), weight, absmax, backend=backend
        )

    def fp8(backend: Backend) -> Callable[[], Any]:
        x = randn(num_tokens, shape.hidden)
        weight = fp8_linear.quantize_rows(
            randn(shape.hidden, shape.hidden) / shape.hidden**0.5, backend="torch"
        )
        return lambda: fp8_linear.fp8_linear(
            fp8_linear.quantize_rows(x, backend=backend),
            weight.values,
            weight.scales,
            backend=backend,
        )

    operations = {
        "attention": attention,
        "chunk_summaries": summaries,
        "norm": norm,
        "rotation": rotation,
        "gate": gate,
        "head": head,
        "int8_linear": int8,
    }
    if has_fp8_products(device):
        operations["fp8_linear"] = fp8
    yield from operations.items()


def agrees(case: Case) -> bool:
    """Whether both backends give the same, as far as the type goes."""
    expected, ours = (case(backend)() for backend in BACKENDS)
    try:
        torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)
    except AssertionError:
        return False
    return True
