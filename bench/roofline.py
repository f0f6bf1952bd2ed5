"""Computes upper bounds of EvaByte 6.5B's speed on GPUs from data sheets; measures nothing.

Time of one pass over M bytes of text, by the roofline model (Williams et al. 2009,
doi:10.1145/1498765.1498785):

    t(M) = max(flops * M / peak, weight_bytes / bandwidth)      the linear layers
         + unpack_bytes / bandwidth                             nf4: the weights, once per pass
         + row_bytes * M / bandwidth                            what lies between the linear layers

The model assumes that products and element-wise kernels do not overlap. It leaves out caches,
launches and the host, so the figures are ceilings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# EvaByte/EvaByte and EvaByte-SFT, config.json.
HIDDEN, INTERMEDIATE, LAYERS = 4096, 11008, 32
LINEAR_WEIGHTS = LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INTERMEDIATE)
OTHER_WEIGHTS = 6_488_330_240 - LINEAR_WEIGHTS
FLOPS_PER_BYTE = 2 * LINEAR_WEIGHTS

BUDGETS = (256, 2048, 8192, 32_768)
CEILING_SHARE = 0.9


@dataclass(frozen=True)
class Gpu:
    """Dense peaks of a GPU as its data sheet has them."""

    name: str
    peak_bf16: float  # FLOP/s
    peak_int8: float  # op/s
    bandwidth: float  # bytes/s
    memory_bytes: float
    has_triton: bool


# The T4 has no bfloat16 units: cuBLAS computes it by float32 FMA, 8.1 TFLOP/s.
GPUS = (
    Gpu("T4 16 GB", 8.1e12, 130e12, 320e9, 16e9, has_triton=False),
    Gpu("L4 24 GB", 121e12, 242e12, 300e9, 24e9, has_triton=True),
    Gpu("A100 80 GB SXM", 312e12, 624e12, 2039e9, 80e9, has_triton=True),
    Gpu("H100 80 GB SXM", 989e12, 1979e12, 3350e9, 80e9, has_triton=True),
)

# Memory traffic in bytes per byte of text and layer, by reading what each form loads and stores.
# d and i stand for one bfloat16 row of HIDDEN and INTERMEDIATE.
_D, _I = 2 * HIDDEN, 2 * INTERMEDIATE
# Norm with addition 4 d, twice; rotation of keys 2 d; attention, which rotates queries, 4 d; gate
# 3 i. The rotary tables, 512 bytes per byte of text, are read again and again from the L2 cache.
FUSED_BYTES = LAYERS * (8 * _D + 2 * _D + 4 * _D + 3 * _I)
# In int8 norms and SwiGLU write rows of half the bytes: 3.5 d twice, and 2.5 i. The output of
# attention is quantized by a kernel of its own: 1.5 d.
FUSED_INT8_BYTES = LAYERS * (7 * _D + 2 * _D + 4 * _D + _D * 3 // 2 + _I * 5 // 2)
# The same by PyTorch's operations and their float32 copies: addition 3 d and norm 20 d, twice;
# rotation 20 d each for q and k; attention with its gathered rows 12 d; gate 5 i.
TORCH_BYTES = LAYERS * (46 * _D + 40 * _D + 12 * _D + 5 * _I)
# Rows that linear layers read: d once for q, k and v, once for the output, once for gate and up;
# i for the last.
_QUANTIZED_BYTES = 3 * _D + _I
# By PyTorch's operations and float32 copies, quantizing a row moves 23.5 times its bytes. Sums of
# int32 to bfloat16 move 17 times the 5 d and 2 i that come out.
TORCH_INT8_BYTES = LAYERS * (_QUANTIZED_BYTES * 47 // 2 + 17 * (5 * _D + 2 * _I))
# The least, if kernels are joined further. Norms and attention as above; keys are rotated, and
# SwiGLU computed, where they are multiplied.
JOINED_BYTES = LAYERS * (8 * _D + 4 * _D)
# In int8 norms move 7 d as above, and the output of attention 1.5 d. SwiGLU writes i, and a second
# kernel reads it and writes i / 2, since the scale of a row needs the whole row.
JOINED_INT8_BYTES = LAYERS * (7 * _D + 4 * _D + _D * 3 // 2 + _I * 3 // 2)

# The data sheet's peak is at the boost clock, which 72 W do not hold in long products.
L4_BASE_MHZ, L4_BOOST_MHZ = 795, 2040
# Thousands of bytes of text per second that would be excellent: estimates, from to.
TARGETS = {
    "L4 24 GB": ((6.0, 6.5), (8, 10)),
    "A100 80 GB SXM": ((20, 21), (33, 36)),
    "H100 80 GB SXM": ((58, 62), (95, 110)),
}

NF4_BYTES_PER_WEIGHT = 0.5625
# Of a layer at work, per byte of text: stream, branch, norm, q, k, v and gate, up, product.
WORKING_BYTES = 6 * _D + 3 * _I


@dataclass(frozen=True)
class Mode:
    """How the weights are stored and multiplied."""

    name: str
    bytes_per_weight: float
    unpacked_bytes_per_weight: float = 0.0
    is_int8: bool = False


MODES = (
    Mode("none (bfloat16)", 2.0),
    Mode("int8", 1.0, is_int8=True),
    # bitsandbytes unpacks the whole weight to bfloat16 in every pass, then multiplies that.
    Mode("nf4", NF4_BYTES_PER_WEIGHT, unpacked_bytes_per_weight=2.0),
)


def speed(gpu: Gpu, mode: Mode, budget_bytes: int) -> float:
    """Return the bytes of text per second of passes of `budget_bytes`."""
    peak = gpu.peak_int8 if mode.is_int8 else gpu.peak_bf16
    read = mode.unpacked_bytes_per_weight or mode.bytes_per_weight
    products_s = max(FLOPS_PER_BYTE * budget_bytes / peak, LINEAR_WEIGHTS * read / gpu.bandwidth)
    unpack_s = 0.0
    if mode.unpacked_bytes_per_weight:
        moved = mode.bytes_per_weight + mode.unpacked_bytes_per_weight
        unpack_s = LINEAR_WEIGHTS * moved / gpu.bandwidth
    rows_s = row_bytes(gpu, mode) * budget_bytes / gpu.bandwidth
    return budget_bytes / (products_s + unpack_s + rows_s)


def row_bytes(gpu: Gpu, mode: Mode) -> int:
    """Return what lies between the linear layers, in bytes of memory per byte of text."""
    if gpu.has_triton:
        return FUSED_INT8_BYTES if mode.is_int8 else FUSED_BYTES
    return TORCH_BYTES + (TORCH_INT8_BYTES if mode.is_int8 else 0)


def ceiling(gpu: Gpu, mode: Mode) -> float:
    """Return the bytes of text per second that no budget exceeds."""
    peak = gpu.peak_int8 if mode.is_int8 else gpu.peak_bf16
    return 1 / (FLOPS_PER_BYTE / peak + row_bytes(gpu, mode) / gpu.bandwidth)


def sufficient_budget(gpu: Gpu, mode: Mode) -> int:
    """Return the smallest budget, a power of two, that reaches 90 % of the ceiling."""
    budget_bytes = 64
    while speed(gpu, mode, budget_bytes) < CEILING_SHARE * ceiling(gpu, mode):
        budget_bytes *= 2
    return budget_bytes


def weight_bytes(mode: Mode) -> float:
    """Return the memory of all weights; those that are not quantized are bfloat16."""
    return LINEAR_WEIGHTS * mode.bytes_per_weight + OTHER_WEIGHTS * 2


def table() -> str:
    """Return the figures as a Markdown table."""
    heads = [f"{budget:,}" for budget in BUDGETS]
    lines = [
        f"| GPU | quantization | weights, GB | {' | '.join(heads)} | ceiling | 90 % from |",
        f"|---|---|---|{'---|' * (len(BUDGETS) + 2)}",
    ]
    return "\n".join((*lines, *_rows()))


def _rows() -> Iterator[str]:
    for gpu in GPUS:
        for mode in MODES:
            speeds = [speed(gpu, mode, budget) for budget in BUDGETS]
            kilobytes = [f"{value / 1e3:.1f}" for value in (*speeds, ceiling(gpu, mode))]
            cells = [gpu.name, mode.name, f"{weight_bytes(mode) / 1e9:.1f}", *kilobytes]
            yield f"| {' | '.join(cells)} | {sufficient_budget(gpu, mode):,} |"


def kernels_table() -> str:
    """Return the ceilings in bfloat16 with PyTorch's operations and with the kernels."""
    lines = ["| GPU | torch, kB/s | triton, kB/s | ratio |", "|---|---|---|---|"]
    for gpu in GPUS:
        if gpu.has_triton:
            products_s = FLOPS_PER_BYTE / gpu.peak_bf16
            torch_speed = 1 / (products_s + TORCH_BYTES / gpu.bandwidth)
            ours = ceiling(gpu, MODES[0])
            lines.append(
                f"| {gpu.name} | {torch_speed / 1e3:.1f} | {ours / 1e3:.1f} "
                f"| {ours / torch_speed:.1f} |"
            )
    return "\n".join(lines)


def joined_table() -> str:
    """Return the ceilings of products alone, with the kernels, and with kernels joined further."""
    lines = [
        "| GPU | mode | products alone, kB/s | with the kernels | with kernels joined further |",
        "|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        for mode, joined_bytes in ((MODES[0], JOINED_BYTES), (MODES[1], JOINED_INT8_BYTES)):
            if gpu.has_triton:
                products_s = products_s_per_byte(gpu, mode)
                joined = 1 / (products_s + joined_bytes / gpu.bandwidth)
                speeds = (1 / products_s, ceiling(gpu, mode), joined)
                cells = [gpu.name, mode.name, *(f"{value / 1e3:.1f}" for value in speeds)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def targets_table() -> str:
    """Return the targets, and their shares of what products alone allow at the dense peak."""
    lines = [
        "| GPU | bfloat16, kB/s | share | int8 or fp8, kB/s | share |",
        "|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        if gpu.name not in TARGETS:
            continue
        cells = [gpu.name]
        for mode, (low, high) in zip(MODES[:2], TARGETS[gpu.name], strict=True):
            shares = (target * 1e3 * products_s_per_byte(gpu, mode) for target in (low, high))
            cells += [f"{low:g} to {high:g}", " to ".join(f"{share:.0%}" for share in shares)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def products_s_per_byte(gpu: Gpu, mode: Mode) -> float:
    """Return the seconds of a byte's products at the dense peak."""
    return FLOPS_PER_BYTE / (gpu.peak_int8 if mode.is_int8 else gpu.peak_bf16)


def main() -> None:
    """Print the tables of docs/gpu.md."""
    for each in (table(), kernels_table(), joined_table(), targets_table()):
        print(each, end="\n\n")


if __name__ == "__main__":
    main()
