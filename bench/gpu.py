"""Times every kernel and the whole model on this machine's GPU, each against its PyTorch form.

`make bench-gpu` runs it. A kernel whose result differs from PyTorch's gets no time. The model has
the size of EvaByte 6.5B and random weights: speed does not depend on their values.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.results import write_results
from bench.roofline import BUDGETS
from model import EvaByteConfig, EvaByteForCausalLM
from model.ops.backend import Backend
from model.ops.chunk_summaries import chunk_summaries
from model.ops.eva_attention import eva_attention, plan_attention
from model.ops.head_log_likelihood import head_log_likelihood
from model.ops.int8_linear import int8_linear, quantize_rows
from model.ops.rms_norm import add_rms_norm
from model.ops.rotary import rotary_tables, rotate_queries_and_keys
from model.ops.swiglu import swiglu
from model.packing import PackedLayout, lay_out
from model.scoring.log_likelihood import ByteScores, score_bytes

BACKENDS: tuple[Backend, ...] = ("torch", "triton")
WARM_UP, REPEATS = 3, 20
# bfloat16 results of size 1 that were rounded at different places.
TOLERANCE = 5e-2
TEXT_BYTES = 200


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

    def randn(*size: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(sum(size))
        return torch.randn(size, generator=generator, device=device).to(dtype)

    def by_head(num_rows: int) -> Tensor:
        return randn(num_rows, shape.heads, head_dim)

    chunk_starts = torch.from_numpy(layout.chunk_starts).to(device)
    positions = torch.from_numpy(layout.positions).to(device)

    def attention(backend: Backend) -> Callable[[], Any]:
        q, past = by_head(num_tokens), by_head(layout.num_past)
        plan = plan_attention(
            layout, num_heads=shape.heads, dtype=dtype, device=device, backend=backend
        )
        return lambda: eva_attention(q, q, q, past, past, plan)

    def summaries(backend: Backend) -> Callable[[], Any]:
        keys, mu = by_head(num_tokens), randn(shape.heads, head_dim)
        return lambda: chunk_summaries(
            keys, keys, chunk_starts, chunk_size=shape.chunk, mu=mu, phi=mu, backend=backend
        )

    def norm(backend: Backend) -> Callable[[], Any]:
        x, weight = randn(num_tokens, shape.hidden), randn(shape.hidden)
        return lambda: add_rms_norm(x, x, weight, eps=1e-5, add_unit_offset=True, backend=backend)

    def rotation(backend: Backend) -> Callable[[], Any]:
        q, k = by_head(num_tokens), by_head(num_tokens)
        tables = rotary_tables(positions, head_dim=head_dim, theta=1e5)
        return lambda: rotate_queries_and_keys(q, k, *tables, backend=backend)

    def gate(backend: Backend) -> Callable[[], Any]:
        x = randn(num_tokens, shape.intermediate)
        return lambda: swiglu(x, x, backend=backend)

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

    yield from {
        "attention": attention,
        "chunk_summaries": summaries,
        "norm": norm,
        "rotation": rotation,
        "gate": gate,
        "head": head,
        "int8_linear": int8,
    }.items()


def agrees(case: Case) -> bool:
    """Whether both backends give the same, as far as the type goes."""
    expected, ours = (case(backend)() for backend in BACKENDS)
    try:
        torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)
    except AssertionError:
        return False
    return True


def time_ms(run: Callable[[], Any]) -> float:
    """Return the median time of `run` on the GPU, in milliseconds."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median(times[WARM_UP:])


def measure_operations(shape: Shape, device: torch.device) -> dict[str, Any]:
    """Return the time of each operation by backend, or that the backends disagree."""
    figures: dict[str, Any] = {}
    for name, case in cases(shape, device):
        if not agrees(case):
            figures[f"{name}_ms"] = "backends disagree"
            continue
        for backend in BACKENDS:
            figures[f"{name}_{backend}_ms"] = round(time_ms(case(backend)), 4)
    return figures


def measure_model(num_layers: int, device: torch.device) -> dict[str, Any]:
    """Return bytes of text per second and peak memory, by backend and by bytes of one pass."""
    config = EvaByteConfig(num_hidden_layers=num_layers)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    figures = {}
    for budget in BUDGETS:
        lengths = _texts_of(budget)
        ids = torch.arange(budget, device=device) % 256 + 64
        layout = model.lay_out(lengths)
        for backend in BACKENDS:
            model.model.backend = backend
            measured = measure_pass(partial(score, model, ids, layout), budget)
            for name, figure in measured.items():
                figures[f"model_{backend}_pass_of_{budget}_{name}"] = figure
    return figures


def measure_pass(run: Callable[[], Any], num_bytes: int) -> dict[str, Any]:
    """Return speed and peak memory of a pass, or that it does not fit."""
    torch.cuda.reset_peak_memory_stats()
    try:
        elapsed_ms = time_ms(run)
    except torch.OutOfMemoryError:
        return {"bytes_per_s": "out of memory"}
    return {
        "bytes_per_s": round(num_bytes / elapsed_ms * 1e3),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }


def score(model: EvaByteForCausalLM, ids: Tensor, layout: PackedLayout) -> ByteScores:
    """Score the packed `ids` [T] as the service does."""
    backend = model.model.backend
    hidden = model.model(ids, layout)
    return score_bytes(
        hidden, model.next_id_weight, ids, with_moments=False, top_k=0, backend=backend
    )


def main() -> int:
    """Measure and write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--layers",
        type=int,
        default=32,
        help="layers of the model; use fewer if 13 GB do not fit (default 32)",
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench.gpu: no CUDA device found; run this on a machine with a GPU", file=sys.stderr)
        return 1
    device = torch.device("cuda")
    shape = Shape(lengths=(*_texts_of(4096), 4096))
    with torch.inference_mode():
        figures = measure_operations(shape, device) | measure_model(options.layers, device)
    setup = {"gpu": torch.cuda.get_device_name(), "layers": options.layers, "shape": str(shape)}
    write_results("gpu", figures, setup)
    return 0


def _texts_of(num_bytes: int) -> tuple[int, ...]:
    """Cut `num_bytes` into texts of a usual length."""
    rest = num_bytes % TEXT_BYTES
    return (TEXT_BYTES,) * (num_bytes // TEXT_BYTES) + ((rest,) if rest else ())


if __name__ == "__main__":
    sys.exit(main())
