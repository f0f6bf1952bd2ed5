"""Checks the tensors of kernel launches, and chooses the width of row blocks.

A kernel only gets addresses: with a wrong shape or type it would silently read other memory.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

# Name, tensor, names of its axes, allowed types.
Argument = tuple[str, Tensor, str, tuple[torch.dtype, ...]]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INDICES = (torch.int64,)

# More than the kinds of launches in a few passes.
REMEMBERED_LAUNCHES = 512

# 16 numbers for each of the 1,024 threads that a program may have: with 32, registers spill.
MAX_ROW = 16_384

_TRITON_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


class _Argument(NamedTuple):
    """What is checked of one tensor."""

    name: str
    axes: str
    dtypes: tuple[torch.dtype, ...]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    strides: tuple[int, ...] | None  # None where it is contiguous
    may_have_rows_apart: bool
    needs_gradient: bool


def check_arguments(
    op: str, *arguments: Argument, rows_apart: Collection[str] = ()
) -> Mapping[str, int]:
    """Check the tensors of one launch against each other; return the size of each axis.

    Axes are names in a row, such as `"T H D"`; one name means one size in all tensors. Tensors are
    contiguous. Those named in `rows_apart` are at least contiguous behind the first axis, as the
    parts of one product are. All layers of a pass launch with like tensors, so the checks run at
    the first of them and are remembered.

    Raises:
        ValueError: a shape, type, device or memory layout is wrong, or a tensor requires a
            gradient, which kernels do not compute. The message names the argument.
    """
    return _checked(
        op,
        tuple(
            [
                (
                    name,
                    axes,
                    dtypes,
                    tensor.shape,
                    tensor.dtype,
                    tensor.device,
                    None if tensor.is_contiguous() else tensor.stride(),
                    name in rows_apart,
                    tensor.requires_grad and torch.is_grad_enabled(),
                )
                for name, tensor, axes, dtypes in arguments
            ]
        ),
    )


@lru_cache(maxsize=REMEMBERED_LAUNCHES)
def _checked(op: str, arguments: tuple[tuple[Any, ...], ...]) -> Mapping[str, int]:
    sizes: dict[str, int] = {}
    described = [_Argument(*argument) for argument in arguments]
    for each in described:
        if fault := _fault(each, sizes) or _misplacement(each, described[0]):
            raise ValueError(f"{op}: {each.name} {fault}")
        sizes.update(zip(each.axes.split(), each.shape, strict=True))
    return MappingProxyType(sizes)


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


def _fault(argument: _Argument, sizes: dict[str, int]) -> str:
    """Return what is wrong with shape, type or layout; an empty string if nothing is."""
    shape, axes = argument.shape, argument.axes.split()
    if len(shape) != len(axes) or any(
        sizes.get(axis, size) != size for axis, size in zip(axes, shape, strict=True)
    ):
        expected = _listed(sizes.get(axis, axis) for axis in axes)
        return f"has shape {list(shape)}; the other tensors imply {expected}"
    if argument.dtype not in argument.dtypes:
        return f"has type {argument.dtype}; allowed are {_listed(argument.dtypes)}"
    if argument.strides is None or (argument.may_have_rows_apart and _has_rows(argument)):
        return ""
    return f"has strides {list(argument.strides)} for shape {list(shape)}; make it contiguous"


def _has_rows(argument: _Argument) -> bool:
    """Whether the tensor is contiguous behind its first axis, and its rows do not overlap."""
    assert argument.strides is not None
    num_values = 1
    for size, stride in zip(argument.shape[:0:-1], argument.strides[:0:-1], strict=True):
        if size != 1 and stride != num_values:
            return False
        num_values *= size
    return argument.strides[0] >= num_values


def _misplacement(argument: _Argument, first: _Argument) -> str:
    """Return why the kernel cannot use the tensor here; an empty string if it can."""
    if argument.device != first.device:
        return f"is on {argument.device}, but {first.name} is on {first.device}; move one of them"
    if argument.needs_gradient:
        return (
            "requires a gradient, but the kernel runs forward only; "
            "use torch.inference_mode() or the torch backend"
        )
    return ""


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(str(value) for value in values)}]"
