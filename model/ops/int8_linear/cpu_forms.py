"""Chooses by measurement how a CPU multiplies int8 matrices; every form gives the same bits.

oneDNN's int8 product is the fastest where the CPU has VNNI instructions. Without them it is wrong
on some CPUs, where it adds two products in int16, and slow on others. The other form converts to
float32, which is exact as long as sums stay below 2**24.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

from model.ops.int8_linear.reference import EXACT_FLOAT32_DEPTH, LARGEST, float32_int_mm
from model.ops.timing import shortest_times

Form = Callable[[Tensor, Tensor], Tensor]

# Rows, inputs and outputs of the measured product: 1 ms where a form is fast. The slowest form that
# was seen, 1 ns per multiplication on an EPYC of the Zen 3 generation, takes 34 ms.
MEASURED_SHAPE = (64, 512, 1024)
# The form that converts must be faster by this factor, so that starts rarely differ.
MIN_SPEED_UP = 1.25


def exact_sums(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight^T` [T, out] in float32, rounded once; x: [T, in], weight: [out, in] int8.

    The form is the fastest exact one here.
    """
    return fastest_exact_form()(x, weight)


def by_int8(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply as int8 into int32."""
    if x.shape[1] == 1:
        # With one column PyTorch 2.13 takes the transposed weight for another layout.
        return by_float32(x, weight)
    return torch._int_mm(x, weight.t()).float()


def by_float32(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply as float32, in pieces that are short enough to be exact."""
    if x.shape[1] <= EXACT_FLOAT32_DEPTH:
        return F.linear(x.float(), weight.float())
    return float32_int_mm(x, weight.t()).float()


@cache
def fastest_exact_form() -> Form:
    """Return the faster form of those that are exact on this CPU; the first call measures it.

    Both have the same bits, so the choice moves no score.
    """
    if not is_exact(by_int8):
        return by_float32
    num_rows, num_in, num_out = MEASURED_SHAPE
    x, weight = _random(num_rows, num_in), _random(num_out, num_in)
    int8_s, float32_s = shortest_times([lambda: by_int8(x, weight), lambda: by_float32(x, weight)])
    return by_float32 if float32_s * MIN_SPEED_UP < int8_s else by_int8


def is_exact(form: Form) -> bool:
    """Tell whether `form` gives the exact sums: the largest ones, and those of random numbers."""
    largest = torch.full((32, 64), LARGEST, dtype=torch.int8)
    drawn, other = _random(32, 512), _random(48, 512)
    return all(
        torch.equal(form(a, b), float32_int_mm(a, b.t()).float())
        for a, b in ((largest, largest), (largest, -largest), (drawn, other))
    )


def _random(num_rows: int, num_columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(num_rows)
    shape = num_rows, num_columns
    return torch.randint(-LARGEST, LARGEST + 1, shape, generator=generator, dtype=torch.int8)
