"""What the launchers launch, compiled for GPUs that are not here: it fits them and is fast code.

The launchers themselves run, on tensors without memory; only the launch is left out.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bench.first_gpu.steps.tiles import LONE_TEXT_TILES
from bench.first_gpu.steps.tiles import TILES as BENCHMARK_TILES
from model.ops import fp8_linear
from model.ops.chunk_summaries.kernel import chunk_summaries
from model.ops.compilation import watch_compilation
from model.ops.eva_attention.kernel import eva_attention
from model.ops.eva_attention.kernel_plan import KernelPlan
from model.ops.float_linear.kernel import float_linear
from model.ops.fp8_linear import kernel as fp8_kernel
from model.ops.fp8_linear.tiles import TILES as FP8_TILES
from model.ops.fp8_linear.tiles import tile_for as fp8_tile_for
from model.ops.head_log_likelihood.kernel import head_log_likelihood
from model.ops.int8_linear import kernel as int8_kernel
from model.ops.int8_linear.kernel import int8_linear, quantize_rows
from model.ops.int8_linear.tiles import TILES, tile_for
from model.ops.rms_norm.kernel import add_rms_norm, add_rms_norm_quantized
from model.ops.rotary.kernel import rotate_in_place
from model.ops.swiglu.kernel import swiglu, swiglu_quantized

# Compute capability to the shared memory that one block may have (CUDA C++ Programming Guide,
# table "Technical Specifications per Compute Capability").
SHARED_BYTES = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448}
REGISTERS = 65_536

FP8_DOT = r"(mma\.sync|wgmma\.mma_async)\S*\.e4m3\.e4m3"
INT8_DOT = r"(mma\.sync|wgmma\.mma_async)\S*\.s8\.s8"
TF32_DOT = r"(mma\.sync|wgmma\.mma_async)\S*\.tf32\.tf32"
BF16_DOT = r"(mma\.sync|wgmma\.mma_async)\S*\.bf16\.bf16"
F16_DOT = r"(mma\.sync|wgmma\.mma_async)\S*\.f16\.f16"
FMA_DOT = r"fma\.rn\.f32"
DOTS = {torch.bfloat16: BF16_DOT, torch.float16: F16_DOT, torch.float32: TF32_DOT}
NO_DOT = ""
# A load by the tensor memory accelerator of compute capability 9.0.
TMA_LOAD = "cp.async.bulk.tensor"


@dataclass(frozen=True)
class Address:
    """What Triton asks of a tensor argument when it compiles."""

    dtype: torch.dtype

    def data_ptr(self) -> int:
        return 1 << 20

    def ptr_range(self) -> int:
        return 0


@dataclass(frozen=True)
class AbsentGpu:
    """What Triton asks of a driver when it compiles."""

    capability: int

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


CompileFor = Callable[[int, Callable[[], object]], list[Any]]


@pytest.fixture
def compile_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileFor]:
    """Run a launcher for a compute capability; return the kernels that it would launch."""
    run, used = JITFunction.run, set()
    kernels: list[Any] = []

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        self.device_caches.clear()  # they remember the target
        used.add(self)
        addresses = [Address(a.dtype) if isinstance(a, Tensor) else a for a in args]
        kernels.append(run(self, *addresses, grid=grid, warmup=True, **kwargs))

    def compile_for(capability: int, launch: Callable[[], object]) -> list[Any]:
        monkeypatch.setattr(triton.runtime.driver, "_active", AbsentGpu(capability))
        with FakeTensorMode(), torch.device("cuda"):
            launch()
        return kernels

    monkeypatch.setattr(JITFunction, "run", compile_only)
    yield compile_for
    for function in used:
        function.device_caches.clear()


def of_one_product(dtype: torch.dtype, num_parts: int, *shape: int) -> tuple[Tensor, ...]:
    """Return the parts of a product, each [3000, *shape], as the model's layers have them."""
    parts = torch.empty(3000, num_parts * math.prod(shape), dtype=dtype).chunk(num_parts, dim=1)
    return tuple(part.unflatten(1, shape) for part in parts)


def attend(dtype: torch.dtype, head_dim: int = 128) -> None:
    q, k, v = of_one_product(dtype, 3, 32, head_dim)
    past = torch.empty(128, 32, head_dim, dtype=dtype)
    blocks = torch.empty(50, 5, dtype=torch.int64)
    plan = KernelPlan(blocks, dtype, num_tokens=3000, num_summaries=128)
    table = torch.empty(3000, head_dim // 2)
    eva_attention(q, k, v, past, past, plan, rotary=(table, table))


def summarise(dtype: torch.dtype, head_dim: int = 128, chunk_size: int = 16) -> None:
    _, keys, values = of_one_product(dtype, 3, 32, head_dim)
    mu, starts = torch.empty(32, head_dim, dtype=dtype), torch.empty(128, dtype=torch.int64)
    chunk_summaries(keys, values, starts, chunk_size=chunk_size, mu=mu, phi=mu)


def normalise(dtype: torch.dtype, channels: int = 4096) -> None:
    x, weight = torch.empty(3000, channels, dtype=dtype), torch.empty(channels, dtype=dtype)
    add_rms_norm(x, x, weight, eps=1e-5, add_unit_offset=True)


def rotate(dtype: torch.dtype) -> None:
    _, k, _ = of_one_product(dtype, 3, 32, 128)
    table = torch.empty(3000, 64)
    rotate_in_place(k, table, table)


def gate(dtype: torch.dtype) -> None:
    swiglu(*of_one_product(dtype, 2, 11008))


def normalise_quantized(channels: int = 4096, values_dtype: torch.dtype = torch.int8) -> None:
    x, weight = (
        torch.empty(*shape, dtype=torch.bfloat16) for shape in ((3000, channels), (channels,))
    )
    options = {"eps": 1e-5, "add_unit_offset": True, "values_dtype": values_dtype}
    add_rms_norm_quantized(x, x, weight, **options)


def gate_quantized(values_dtype: torch.dtype = torch.int8) -> None:
    swiglu_quantized(*of_one_product(torch.bfloat16, 2, 11008), values_dtype=values_dtype)


def score(dtype: torch.dtype, *, with_moments: bool, top_k: int) -> None:
    hidden, weight = torch.empty(3000, 4096, dtype=dtype), torch.empty(320, 4096, dtype=dtype)
    targets = torch.empty(3000, dtype=torch.int64)
    head_log_likelihood(hidden, weight, targets, with_moments=with_moments, top_k=top_k)


def multiply_floats(dtype: torch.dtype) -> None:
    float_linear(torch.empty(3000, 4096, dtype=dtype), torch.empty(12_288, 4096, dtype=dtype))


def multiply(num_rows: int, num_in: int = 4096, num_out: int = 12_288) -> None:
    x = torch.empty(num_rows, num_in, dtype=torch.bfloat16)
    weight = torch.empty(num_out, num_in, dtype=torch.int8)
    int8_linear(quantize_rows(x), weight, torch.empty(num_out))


def multiply_fp8(num_rows: int, num_in: int = 4096, num_out: int = 12_288) -> None:
    x = torch.empty(num_rows, num_in, dtype=torch.bfloat16)
    weight = torch.empty(num_out, num_in, dtype=fp8_linear.FP8)
    rows = fp8_linear.quantize_rows(x, backend="triton")
    fp8_linear.fp8_linear(rows, weight, torch.empty(num_out), backend="triton")


# What EvaByte 6.5B launches: the kernels' pattern of tensor-core instructions, and the launch.
PUBLISHED = {
    "attend": ([BF16_DOT], lambda: attend(torch.bfloat16)),
    "summarise": ([NO_DOT], lambda: summarise(torch.bfloat16)),
    "normalise": ([NO_DOT], lambda: normalise(torch.bfloat16)),
    "rotate": ([NO_DOT], lambda: rotate(torch.bfloat16)),
    "gate": ([NO_DOT], lambda: gate(torch.bfloat16)),
    "normalise_quantized": ([NO_DOT], normalise_quantized),
    "gate_quantized": ([NO_DOT], gate_quantized),
    "multiply_floats": ([BF16_DOT], lambda: multiply_floats(torch.bfloat16)),
    "score": ([BF16_DOT], lambda: score(torch.bfloat16, with_moments=True, top_k=5)),
}

# Other models and types, for the GPU with the least shared memory.
OTHERS = {
    "attend_head_of_16": ([BF16_DOT], lambda: attend(torch.bfloat16, 16)),
    "attend_head_of_80": ([F16_DOT], lambda: attend(torch.float16, 80)),
    "attend_head_of_256": ([BF16_DOT], lambda: attend(torch.bfloat16, 256)),
    "attend_float32": ([TF32_DOT], lambda: attend(torch.float32)),
    "attend_head_of_512": ([BF16_DOT], lambda: attend(torch.bfloat16, 512)),
    "attend_float32_head_of_512": ([FMA_DOT], lambda: attend(torch.float32, 512)),
    "summarise_long_chunks": ([NO_DOT], lambda: summarise(torch.float32, 256, 1000)),
    "normalise_longest_rows": ([NO_DOT], lambda: normalise(torch.float32, 16_384)),
    "score_log_prob_alone": (
        [BF16_DOT],
        lambda: score(torch.bfloat16, with_moments=False, top_k=0),
    ),
    "multiply_float32": ([TF32_DOT], lambda: multiply_floats(torch.float32)),
    "multiply_widths_between_tiles": ([NO_DOT, INT8_DOT], lambda: multiply(4096, 1000, 776)),
    "score_float32": ([TF32_DOT], lambda: score(torch.float32, with_moments=True, top_k=5)),
}


@pytest.mark.parametrize("capability", SHARED_BYTES)
@pytest.mark.parametrize(("dots", "launch"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_model_compiles(capability, dots, launch, compile_for, tmp_path):
    check(compile_for(capability, launch), capability, dots, tmp_path)


@pytest.mark.parametrize(("dots", "launch"), OTHERS.values(), ids=OTHERS.keys())
def test_other_models_compile(dots, launch, compile_for, tmp_path):
    check(compile_for(89, launch), 89, dots, tmp_path)


TILE_ROWS = [(capability, most or 8192) for capability, tiles in TILES.items() for most, _ in tiles]


@pytest.mark.parametrize(("capability", "num_rows"), TILE_ROWS)
def test_each_tile_of_the_int8_product_compiles(capability, num_rows, compile_for, tmp_path):
    kernels = compile_for(capability, lambda: multiply(num_rows))
    check(kernels, capability, [NO_DOT, INT8_DOT], tmp_path)
    tile = tile_for(capability, num_rows)
    assert kernels[1].metadata.num_warps == tile.num_warps
    assert kernels[1].metadata.num_stages == tile.num_stages
    assert (TMA_LOAD in kernels[1].asm["ptx"]) == tile.by_descriptor


@pytest.mark.parametrize(
    "tile", [tile for tile in BENCHMARK_TILES[torch.int8] if tile.by_descriptor], ids=str
)
def test_each_tile_by_descriptor_of_the_benchmark_compiles(
    tile, compile_for, tmp_path, monkeypatch
):
    monkeypatch.setattr(int8_kernel, "tile_for", lambda capability, num_rows: tile)
    kernels = compile_for(90, lambda: multiply(8192))
    check(kernels, 90, [NO_DOT, INT8_DOT], tmp_path)
    assert TMA_LOAD in kernels[1].asm["ptx"]


FP8_TILE_ROWS = [
    (capability, most or 8192) for capability, tiles in FP8_TILES.items() for most, _ in tiles
]


@pytest.mark.parametrize(("capability", "num_rows"), FP8_TILE_ROWS)
def test_each_tile_of_the_fp8_product_compiles(capability, num_rows, compile_for, tmp_path):
    kernels = compile_for(capability, lambda: multiply_fp8(num_rows))
    check(kernels, capability, [NO_DOT, FP8_DOT], tmp_path)
    tile, ptx = fp8_tile_for(capability, num_rows), kernels[1].asm["ptx"]
    assert kernels[1].metadata.num_stages == tile.num_stages
    assert (TMA_LOAD in ptx) == tile.by_descriptor
    # One kind of instruction, and a sum in float32 for each step and each output of a thread.
    assert ("wgmma" in ptx, "mma.sync" in ptx) == (capability >= 90, capability < 90)
    per_thread = tile.rows * tile.outputs // (32 * tile.num_warps)
    assert len(re.findall(r"\badd(?:\.rn)?\.f32", ptx)) >= per_thread


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [*((torch.int8, each) for each in TILES), *((fp8_linear.FP8, each) for each in FP8_TILES)],
    ids=str,
)
def test_tiles_for_a_lone_text_in_the_benchmark_compile(
    dtype, capability, compile_for, tmp_path, monkeypatch
):
    is_int8 = dtype == torch.int8
    launch, dot = (multiply, INT8_DOT) if is_int8 else (multiply_fp8, FP8_DOT)
    kernels: list[Any] = []
    for tile in LONE_TEXT_TILES[dtype]:
        module = int8_kernel if is_int8 else fp8_kernel
        monkeypatch.setattr(module, "tile_for", lambda capability, num_rows, tile=tile: tile)
        kernels = compile_for(capability, lambda: launch(208))
    check(kernels, capability, [NO_DOT, dot] * len(LONE_TEXT_TILES[dtype]), tmp_path)


@pytest.mark.parametrize(
    ("launch", "dot"), [(multiply, INT8_DOT), (multiply_fp8, FP8_DOT)], ids=["int8", "fp8"]
)
def test_width_that_no_descriptor_takes_compiles_in_the_plain_form(
    launch, dot, compile_for, tmp_path
):
    kernels = compile_for(90, lambda: launch(4096, 1000, 776))
    check(kernels, 90, [NO_DOT, dot], tmp_path)
    assert TMA_LOAD not in kernels[1].asm["ptx"]


@pytest.mark.parametrize("capability", FP8_TILES)
def test_kernels_that_write_fp8_rows_compile(capability, compile_for, tmp_path):
    def launch() -> None:
        normalise_quantized(values_dtype=fp8_linear.FP8)
        gate_quantized(fp8_linear.FP8)

    check(compile_for(capability, launch), capability, [NO_DOT, NO_DOT], tmp_path)


def test_fp8_product_of_widths_between_tiles_compiles(compile_for, tmp_path):
    kernels = compile_for(89, lambda: multiply_fp8(4096, 1000, 776))
    check(kernels, 89, [NO_DOT, FP8_DOT], tmp_path)


def test_fp8_rows_are_rounded_as_often_as_in_the_reference(compile_for):
    def launch() -> None:
        normalise_quantized(values_dtype=fp8_linear.FP8)
        gate_quantized(fp8_linear.FP8)
        multiply_fp8(40)

    for kernel in compile_for(89, launch)[:3]:
        assert not re.search(FMA_DOT, kernel.asm["ptx"]), kernel.name


def test_int8_rows_are_rounded_as_often_as_in_the_reference(compile_for):
    def launch() -> None:
        normalise_quantized()
        gate_quantized()
        multiply(40)

    for kernel in compile_for(89, launch)[:3]:
        assert not re.search(FMA_DOT, kernel.asm["ptx"]), kernel.name


def check(kernels: list[Any], capability: int, dots: list[str], folder: Path) -> None:
    """Each kernel fits, spills no register and multiplies on tensor cores where it multiplies."""
    assert len(kernels) == len(dots)
    for kernel, dot in zip(kernels, dots, strict=True):
        assert kernel.metadata.shared <= SHARED_BYTES[capability]
        assert re.search(dot, kernel.asm["ptx"])
        registers, stack_bytes = resources(kernel.asm["cubin"], folder / "kernel.cubin")
        assert stack_bytes == 0, "registers are spilled to memory"
        assert registers * 32 * kernel.metadata.num_warps <= REGISTERS


def resources(cubin: bytes, path: Path) -> tuple[int, int]:
    """Registers and bytes of stack per thread."""
    path.write_bytes(cubin)
    usage = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "-res-usage", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    return int(found[1]), int(found[2])


def test_time_of_compiling_is_reported_but_not_of_finding_it_in_the_cache(
    compile_for, monkeypatch, tmp_path
):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(triton.knobs.compilation, "listener", None)
    reply: list[float] = []
    watch_compilation(reply.append)
    for _ in range(2):
        compile_for(89, lambda: gate(torch.bfloat16))
    [elapsed_s] = reply
    assert elapsed_s > 0
