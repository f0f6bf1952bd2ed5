"""What the launchers of all kernels share: checks of their tensors, and widths of their blocks.

A kernel takes addresses, so that a wrong shape or type reads foreign memory without a word.
"""

from collections.abc import Iterable

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

# Name, tensor, its axes by name, the types it may have.
Argument = tuple[str, Tensor, str, tuple[torch.dtype, ...]]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INDICES = (torch.int64,)

# 16 numbers for each of the 1,024 threads that a program may have: with 32, registers spill.
MAX_ROW = 16_384

_TRITON_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


def check_arguments(op: str, *arguments: Argument) -> dict[str, int]:
    """Check the tensors of one launch against each other; return the size of each axis.

    Axes are names behind each other, such as `"T H D"`; one name means one size everywhere.

    Raises:
        ValueError: a shape, type, device or memory layout is not what the kernel reads, or a
            gradient is wanted, which kernels do not compute. The message names the argument.
    """
    sizes: dict[str, int] = {}
    for name, tensor, axes, dtypes in arguments:
        names = axes.split()
        # Told only at fault: a pass of 32 layers launches hundreds of kernels.
        if fault := _fault(tensor, names, dtypes, sizes) or _misplacement(tensor, arguments[0]):
            raise ValueError(f"{op}: {name} {fault}")
        sizes.update(zip(names, tensor.shape, strict=True))
    return sizes


def dot_type(dtype: torch.dtype) -> tl.dtype:
    """Return the type that a kernel hands `dtype` to `tl.dot` in: its own.

    Triton's interpreter multiplies the bits of bfloat16 as integers (triton-lang/triton#11584),
    so that there the products are float32.
    """
    return tl.float32 if knobs.runtime.interpret else _TRITON_TYPES[dtype]


def row_config(op: str, num_channels: int) -> dict[str, int]:
    """Return block width and warps for a program that holds one whole row in registers.

    Raises:
        ValueError: the row is too long for that.
    """
    if num_channels > MAX_ROW:
        raise ValueError(
            f"{op}: rows of {num_channels:,} numbers; the limit is {MAX_ROW:,}, "
            "use the torch backend"
        )
    block = triton.next_power_of_2(num_channels)
    # 16 numbers per thread: enough loads in flight to fill the memory's bandwidth.
    return {"BLOCK_C": block, "num_warps": min(max(block // 512, 1), 32)}


def _fault(
    tensor: Tensor, axes: list[str], dtypes: tuple[torch.dtype, ...], sizes: dict[str, int]
) -> str:
    """Say what is wrong with shape, type or layout; nothing where all is right."""
    shape = tensor.shape
    if len(shape) != len(axes) or any(
        sizes.get(axis, size) != size for axis, size in zip(axes, shape, strict=True)
    ):
        expected = _listed(sizes.get(axis, axis) for axis in axes)
        return f"has shape {list(shape)}; the other tensors ask for {expected}"
    if tensor.dtype not in dtypes:
        return f"is {tensor.dtype}; allowed here: {_listed(dtypes)}"
    if not tensor.is_contiguous():
        return f"has strides {list(tensor.stride())} for shape {list(shape)}; pass it contiguous"
    return ""


def _misplacement(tensor: Tensor, first: Argument) -> str:
    """Say why the kernel cannot read the tensor where it is; nothing where it can."""
    name, neighbour, _, _ = first
    if tensor.device != neighbour.device:
        return f"is on {tensor.device}, {name} on {neighbour.device}; move one"
    if tensor.requires_grad and torch.is_grad_enabled():
        return (
            "requires a gradient, but the kernel runs forward only; "
            "use torch.inference_mode() or the torch backend"
        )
    return ""


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(str(value) for value in values)}]"
