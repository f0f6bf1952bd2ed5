"""Computes the time from a bare L4 VM to 20,000 scored texts by phase; measures nothing.

Phases follow each other. One resource bounds each: line, disk, CPU or GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.roofline import GPUS, MODES, speed, weight_bytes
from model.canary import TEXT
from model.machine.pass_memory import MIN_PASS_BYTES

NUM_TEXTS = 20_000
MEAN_BYTES = (100, 250, 500)

# Assumed: what one connection to the Hub or to a package index brings.
LINE_BYTES_PER_S = 100e6
# Google's limit for the 100 GiB of pd-balanced of deploy/gcp/up: 140 MiB/s and 0.28 more per GiB.
DISK_BYTES_PER_S = (140 + 0.28 * 100) * 2**20
# Assumed for the VM's Cascade Lake, which has no SHA instructions.
SHA256_BYTES_PER_S = 450e6
# Assumed: files that were just read or written, through the host's memory to the GPU.
MEMORY_BYTES_PER_S = 2e9
# docs/docker.md: the worker's image without CUDA, on 2 busy cores.
BUILD_S = 315
# What torch's wheels bring of CUDA.
CUDA_BYTES = 5e9
# All kernels of the published model for capability 8.9, on the same 2 busy cores.
COMPILE_S = 20
# docs/gpu.md: what an L4, which does not hold its clocks, may reach of its ceiling; assumed.
SHARES_OF_CEILING = (0.4, 0.6)
PASS_BYTES = 8192
# 16, 64, and a window and a byte.
RARE_FORMS_BYTES = 16 + 64 + 2049

L4 = next(gpu for gpu in GPUS if gpu.name.startswith("L4"))
NONE, INT8 = MODES[0], next(mode for mode in MODES if mode.is_int8)
WEIGHTS, QUANTIZED = weight_bytes(NONE), weight_bytes(INT8)
BYTES_PER_S = tuple(share * speed(L4, INT8, PASS_BYTES) for share in SHARES_OF_CEILING)


@dataclass(frozen=True)
class Phase:
    """Seconds of one phase on a bare VM, and on the same VM after a stop."""

    name: str
    bare_s: float
    again_s: float
    arithmetic: str
    known: str


def phases() -> Iterator[Phase]:
    """The phases before the first text."""
    read_s, read_int8_s = WEIGHTS / DISK_BYTES_PER_S, QUANTIZED / DISK_BYTES_PER_S
    hash_s, hash_int8_s = WEIGHTS / SHA256_BYTES_PER_S, QUANTIZED / SHA256_BYTES_PER_S
    yield Phase("the VM boots", 60, 60, "", "assumed")
    yield Phase("driver, Docker, NVIDIA's toolkit", 600, 0, "packages of 1 GB", "assumed")
    cuda_s = CUDA_BYTES / LINE_BYTES_PER_S + 2 * CUDA_BYTES / DISK_BYTES_PER_S
    yield Phase(
        "images",
        BUILD_S + cuda_s,
        5,
        f"{BUILD_S} s without CUDA; its 5 GB over the line and twice to disk",
        "the first part measured, elsewhere",
    )
    yield Phase("`import`", 30, 30, "packages from a cold disk", "assumed")
    yield Phase(
        "`download`",
        WEIGHTS / LINE_BYTES_PER_S + hash_s,
        1,
        "13.0 GB over the line, then SHA-256 of them in memory",
        "on paper",
    )
    yield Phase(
        "`checksum`",
        read_s,
        read_int8_s,
        "13.0 GB from disk; later the quantized 6.5 GB",
        "on paper",
    )
    yield Phase(
        "`quantize`",
        read_s + read_int8_s + hash_int8_s,
        0,
        "13.0 GB from disk; 6.5 GB to disk, and hashed",
        "on paper",
    )
    load_s = QUANTIZED / MEMORY_BYTES_PER_S
    yield Phase("`load`", load_s, load_s, "6.5 GB that are in memory still, to the GPU", "on paper")
    yield Phase("`compile`", COMPILE_S, 0, "21 kernels", "compiled only, on 2 busy cores")
    # Passes of model/scorer.py's warm-up: two lengths twice, rare forms, then the full one.
    measured_bytes = 2 * (MIN_PASS_BYTES + 4 * MIN_PASS_BYTES)
    warm_bytes = len(TEXT) + measured_bytes + RARE_FORMS_BYTES + PASS_BYTES
    warm_s = warm_bytes / BYTES_PER_S[0]
    arithmetic = f"{warm_bytes / 1e3:.1f} kB at {BYTES_PER_S[0] / 1e3:.1f} kB/s"
    yield Phase("`canary`, `warm_up`", warm_s, warm_s, arithmetic, "on paper")


def start_s() -> tuple[float, float]:
    """Return the seconds until the first text can be scored: on a bare VM, and after a stop."""
    every = list(phases())
    return sum(phase.bare_s for phase in every), sum(phase.again_s for phase in every)


def total_s(start_s: float, mean_bytes: int) -> tuple[float, ...]:
    """Return the seconds until all texts are scored, for each share of the ceiling."""
    return tuple(start_s + NUM_TEXTS * mean_bytes / speed for speed in BYTES_PER_S)


def phase_table() -> str:
    """Return the phases as a Markdown table."""
    lines = [
        "| phase | bare VM, s | after a stop, s | what it is made of | how it is known |",
        "|---|---|---|---|---|",
        *(
            f"| {p.name} | {p.bare_s:.0f} | {p.again_s:.0f} | {p.arithmetic} | {p.known} |"
            for p in phases()
        ),
    ]
    bare_s, again_s = start_s()
    lines.append(f"| until the first text | {bare_s:,.0f} | {again_s:,.0f} | | |")
    return "\n".join(lines)


def total_table() -> str:
    """Return the minutes until all texts are scored as a Markdown table."""
    slow, fast = (f"{speed / 1e3:.1f} kB/s" for speed in BYTES_PER_S)
    lines = [
        f"| bytes of a text, mean | bare VM, min, at {slow} | at {fast} "
        f"| after a stop, min, at {slow} | at {fast} |",
        "|---|---|---|---|---|",
    ]
    for mean_bytes in MEAN_BYTES:
        minutes = [s / 60 for start in start_s() for s in total_s(start, mean_bytes)]
        lines.append(f"| {mean_bytes} | {' | '.join(f'{m:.0f}' for m in minutes)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables of docs/deploy.md."""
    print(phase_table())
    print()
    print(total_table())


if __name__ == "__main__":
    main()
