"""Checks the tensors of kernel launches, and chooses the width of row blocks.

A kernel only gets addresses: with a wrong shape or type it would silently read other memory.
"""

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

# Name, tensor, names of its axes, allowed types.
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


def check_arguments(
    op: str, *arguments: Argument, rows_apart: Collection[str] = ()
) -> dict[str, int]:
    """Check the tensors of one launch against each other; return the size of each axis.

    Axes are names in a row, such as `"T H D"`; one name means one size in all tensors. Tensors are
    contiguous. Those named in `rows_apart` are at least contiguous behind the first axis, as the
    parts of one product are.

    Raises:
        ValueError: a shape, type, device or memory layout is wrong, or a tensor requires a
            gradient, which kernels do not compute. The message names the argument.
    """
    sizes: dict[str, int] = {}
    for name, tensor, axes, dtypes in arguments:
        names = axes.split()
        # The message is built on a fault only: a pass of 32 layers launches hundreds of kernels.
        fault = _fault(tensor, names, dtypes, sizes)
        fault = fault or _misplacement(tensor, arguments[0])
        if fault or not (tensor.is_contiguous() or (name in rows_apart and _has_rows(tensor))):
            fault = fault or _layout_fault(tensor)
            raise ValueError(f"{op}: {name} {fault}")
        sizes.update(zip(names, tensor.shape, strict=True))
    return sizes


def gpu_capability() -> int:
    """Return the compute capability of the GPU that kernels compile for: 89 for 8.9.

    Without a GPU, as in Triton's interpreter, it is 0.
    """
    try:
        driver = triton.runtime.driver.active
    except RuntimeError:  # Triton finds no driver
        return 0
    return _capability_of(driver)


@cache
def _capability_of(driver: Any) -> int:
    """Return the compute capability of the GPU that `driver` found; asking costs microseconds."""
    return int(driver.get_current_target().arch)


def dot_type(dtype: torch.dtype) -> tl.dtype:
    """Return the type in which a kernel passes values of `dtype` to `tl.dot`: the same type.

    Triton's interpreter multiplies the bits of bfloat16 as integers (triton-lang/triton#11584), so
    there the type is float32.
    """
    return tl.float32 if knobs.runtime.interpret else _TRITON_TYPES[dtype]


def row_config(op: str, num_channels: int) -> dict[str, int]:
    """Return block width and warps for a program that holds one whole row in registers.

    Raises:
        ValueError: the row is longer than `MAX_ROW`.
    """
    if num_channels > MAX_ROW:
        raise ValueError(
            f"{op}: rows have {num_channels:,} numbers; the limit is {MAX_ROW:,}, "
            "use the torch backend"
        )
    block = triton.next_power_of_2(num_channels)
    # 16 numbers per thread: enough loads in flight to fill the memory's bandwidth.
    return {"BLOCK_C": block, "num_warps": min(max(block // 512, 1), 32)}


def _fault(
    tensor: Tensor, axes: list[str], dtypes: tuple[torch.dtype, ...], sizes: dict[str, int]
) -> str:
    """Return what is wrong with shape or type; an empty string if nothing is."""
    shape = tensor.shape
    if len(shape) != len(axes) or any(
        sizes.get(axis, size) != size for axis, size in zip(axes, shape, strict=True)
    ):
        expected = _listed(sizes.get(axis, axis) for axis in axes)
        return f"has shape {list(shape)}; the other tensors imply {expected}"
    if tensor.dtype not in dtypes:
        return f"has type {tensor.dtype}; allowed are {_listed(dtypes)}"
    return ""


def _layout_fault(tensor: Tensor) -> str:
    strides, shape = list(tensor.stride()), list(tensor.shape)
    return f"has strides {strides} for shape {shape}; make it contiguous"


def _has_rows(tensor: Tensor) -> bool:
    """Whether the tensor is contiguous behind its first axis, and its rows do not overlap."""
    num_values = 1
    for size, stride in zip(tensor.shape[:0:-1], tensor.stride()[:0:-1], strict=True):
        if size != 1 and stride != num_values:
            return False
        num_values *= size
    return tensor.stride(0) >= num_values


def _misplacement(tensor: Tensor, first: Argument) -> str:
    """Return why the kernel cannot use the tensor here; an empty string if it can."""
    name, neighbour, _, _ = first
    if tensor.device != neighbour.device:
        return f"is on {tensor.device}, but {name} is on {neighbour.device}; move one of them"
    if tensor.requires_grad and torch.is_grad_enabled():
        return (
            "requires a gradient, but the kernel runs forward only; "
            "use torch.inference_mode() or the torch backend"
        )
    return ""


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(str(value) for value in values)}]"
