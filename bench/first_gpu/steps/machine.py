"""Lists the machine's parts and measures its ceilings: copies, products and clock."""

import math
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench.first_gpu.run import Run
from bench.first_gpu.timing import kernel_s, wall_s

SMI_S = 10
SMI_GPU = "name,driver_version,memory.total,clocks.max.sm,power.limit"
SMI_LOAD = "clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active"
# A product runs so often between two looks at the clock.
SUSTAINED_BATCH = 20
Product = Callable[[Run, int, int, int], Callable[[], Any]]


def measure(run: Run) -> None:
    """Measure copies, products and the clock under load."""
    with run.part("machine"):
        run.put("machine", **describe(run))
    with run.part("Triton"):
        _start_triton(run)
    with run.part("copy"):
        _measure_copies(run)
    for kind, product in PRODUCTS.items():
        with run.part(f"products in {kind}", needs_s=3):
            _measure_products(run, kind, product)
    with run.part("sustained bf16", needs_s=6):
        _measure_sustained(run)


def describe(run: Run) -> dict[str, Any]:
    """Return the machine's parts and versions beyond those of `bench.results`."""
    facts: dict[str, Any] = {
        "kernel": os.uname().release,
        "disk_free_gib": {
            folder: round(shutil.disk_usage(folder).free / 2**30)
            for folder in ("/tmp", "/dev/shm")  # noqa: S108 - only looked at
            if os.path.isdir(folder)
        },
        "cuda": torch.version.cuda,
        "c_compiler": shutil.which("gcc") or shutil.which("clang"),
        "has_python_headers": (Path(sysconfig.get_path("include")) / "Python.h").exists(),
        "nvidia_smi": nvidia_smi(SMI_GPU),
    }
    if run.is_on_gpu:
        gpu = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "multiprocessors": gpu.multi_processor_count,
            "l2_mib": gpu.L2_cache_size / 2**20,
            "gpu_memory_gib": round(gpu.total_memory / 2**30, 1),
        }
    return facts


def _start_triton(run: Run) -> None:
    """Compile what Triton launches kernels with; without it all that uses kernels fails."""
    if not run.is_on_gpu:
        run.put("Triton: no kernels here")
        return
    from triton.runtime import driver

    began = time.perf_counter()
    target = driver.active.get_current_target()
    run.put("Triton", target=str(target), seconds=round(time.perf_counter() - began, 2))


def nvidia_smi(fields: str) -> str:
    """Return what nvidia-smi says of `fields`, or why it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ended.stdout.strip()


def _measure_copies(run: Run) -> None:
    num_bytes = run.sizes.copy_bytes
    source = torch.randint(0, 100, (num_bytes,), dtype=torch.int8, device=run.device)
    target = torch.empty_like(source)
    took_s = kernel_s(run, lambda: target.copy_(source))
    # Each byte is read and written.
    run.put("copy", gb_per_s=round(2 * num_bytes / took_s / 1e9, 1))
    host = torch.empty(num_bytes // 4, dtype=torch.int8, pin_memory=run.is_on_gpu)
    device = source[: len(host)]
    run.put(
        "copy between host and device, pinned",
        to_device_gb_per_s=_gb_per_s(run, host, device),
        to_host_gb_per_s=_gb_per_s(run, device, host),
    )


def _gb_per_s(run: Run, source: torch.Tensor, target: torch.Tensor) -> float:
    return round(source.nbytes / wall_s(run, lambda: target.copy_(source)) / 1e9, 1)


def _measure_products(run: Run, kind: str, product: Product) -> None:
    """Measure the shapes of a layer, and what the model could reach with them alone."""
    sizes = run.sizes
    rows, hidden, wide = sizes.rows, sizes.hidden, sizes.intermediate
    shapes = {
        "square": (sizes.square, sizes.square, sizes.square),
        "qkvo": (rows, hidden, hidden),
        "gate_up": (rows, hidden, wide),
        "down": (rows, wide, hidden),
        "qkv_merged": (rows, hidden, 3 * hidden),
        "gate_up_merged": (rows, hidden, 2 * wide),
    }
    took_s = {name: kernel_s(run, product(run, *shape)) for name, shape in shapes.items()}
    tera = {name: round(2 * math.prod(shapes[name]) / s / 1e12, 1) for name, s in took_s.items()}
    layer_s = 4 * took_s["qkvo"] + 2 * took_s["gate_up"] + took_s["down"]
    merged = ("qkv_merged", "qkvo", "gate_up_merged", "down")
    merged_s = sum(took_s[name] for name in merged)
    layer_flops = 2 * rows * sizes.linear_weights / sizes.layers
    run.put(
        f"products in {kind}",
        ceiling_tera_per_s=max(tera.values()),
        layer_tera_per_s=round(layer_flops / layer_s / 1e12, 1),
        layer_merged_tera_per_s=round(layer_flops / merged_s / 1e12, 1),
        model_bound_bytes_per_s=round(rows / (layer_s * sizes.layers)),
        **{f"{name}_tera_per_s": value for name, value in tera.items()},
    )


def _measure_sustained(run: Run) -> None:
    """Measure products in bfloat16 for some seconds, and read clock and power meanwhile."""
    square = run.sizes.square
    work = bf16_product(run, square, square, square)
    reading: Future[str] | None = None
    run.synchronize()
    with ThreadPoolExecutor(1) as pool:
        began, num_products = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began) < run.sizes.sustained_s:
            for _ in range(SUSTAINED_BATCH):
                work()
            num_products += SUSTAINED_BATCH
            run.synchronize()
            if reading is None and passed_s > run.sizes.sustained_s / 2:
                reading = pool.submit(nvidia_smi, SMI_LOAD)
        took_s = time.perf_counter() - began
    run.put(
        "sustained bf16",
        tera_per_s=round(2 * square**3 * num_products / took_s / 1e12, 1),
        clock_power_temperature_throttle=reading.result() if reading else None,
    )


def bf16_product(run: Run, num_rows: int, num_in: int, num_out: int) -> Callable[[], Any]:
    """Return PyTorch's product in the type of the model, on random numbers, to be run."""
    x, weight = run.randn(num_rows, num_in), run.randn(num_out, num_in)
    return lambda: torch.nn.functional.linear(x, weight)


def int8_product(run: Run, num_rows: int, num_in: int, num_out: int) -> Callable[[], Any]:
    """Return PyTorch's product of int8 into int32, to be run."""
    x, weight = (
        torch.randint(-127, 128, size, dtype=torch.int8, device=run.device)
        for size in ((num_rows, num_in), (num_out, num_in))
    )
    return lambda: torch._int_mm(x, weight.t())


def fp8_product(run: Run, num_rows: int, num_in: int, num_out: int) -> Callable[[], Any]:
    """Return PyTorch's product of fp8 rows with one scale per row, to be run."""
    # Where the model cannot be imported, the other products are measured all the same.
    from bench.first_gpu import project

    return project.fp8_product(run.randn(num_rows, num_in), run.randn(num_out, num_in))


PRODUCTS: dict[str, Product] = {"bf16": bf16_product, "int8": int8_product, "fp8": fp8_product}
