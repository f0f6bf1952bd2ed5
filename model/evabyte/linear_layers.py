"""Implements linear layers without bias whose weights have another type than their inputs.

They replace `nn.Linear` and the layers of bitsandbytes after a model is loaded.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor, nn

from model.ops.backend import Backend
from model.ops.float_linear import float_linear
from model.ops.fp8_linear import fp8_linear
from model.ops.int8_linear import int8_linear
from model.ops.quantized_rows import QuantizedRows
from model.ops.row_quantization import quantize_rows_to


class QuantizedLinear(nn.Module):
    """A linear layer that multiplies quantized rows; the class of `Int8Linear` and `Fp8Linear`."""

    def __init__(self, weight: Tensor, backend: Backend) -> None:
        """weight: [out, in], in the type of the rows that it multiplies."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.backend = backend

    @property
    def values_dtype(self) -> torch.dtype:
        """The type of the quantized rows that it multiplies, int8 or float8_e4m3fn."""
        return self.weight.dtype

    def forward(self, x: Tensor | QuantizedRows) -> Tensor:
        """Return x [T, in] times the weight, [T, out] in the type of `x`."""
        if isinstance(x, Tensor):
            x = quantize_rows_to(self.values_dtype, x, backend=self.backend)
        return self.multiply(x)

    def multiply(self, x: QuantizedRows) -> Tensor:
        """Return the product of `x` and the weight, [T, out]."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """A linear layer with int8 weights and their row maxima: CB and SCB of bitsandbytes.

    It replaces `Linear8bitLt`. That one casts every input to float16, which overflows at 65,504,
    and on CUDA writes the int32 sums to memory. `ops.int8_linear` does neither.
    """

    weight_absmax: Tensor

    def __init__(self, weight: Tensor, weight_absmax: Tensor, backend: Backend) -> None:
        """weight: [out, in] int8; weight_absmax: [out] float32."""
        super().__init__(weight, backend)
        self.register_buffer("weight_absmax", weight_absmax)

    def multiply(self, x: QuantizedRows) -> Tensor:
        """Return the product of `x` and the weight, [T, out]."""
        return int8_linear(x, self.weight, self.weight_absmax, backend=self.backend)


class Fp8Linear(QuantizedLinear):
    """A linear layer with fp8 weights (e4m3) and the scale of each of their rows."""

    weight_scales: Tensor

    def __init__(self, weight: Tensor, weight_scales: Tensor, backend: Backend) -> None:
        """weight: [out, in] float8_e4m3fn; weight_scales: [out] float32."""
        super().__init__(weight, backend)
        self.register_buffer("weight_scales", weight_scales)

    def multiply(self, x: QuantizedRows) -> Tensor:
        """Return the product of `x` and the weight, [T, out]."""
        return fp8_linear(x, self.weight, self.weight_scales, backend=self.backend)


class WideLinear(nn.Module):
    """A linear layer that converts its weight to the type of its input for each product.

    CPUs that are slow with bfloat16 are faster this way. The weight stays in memory as it is. The
    conversion takes 3 % of the time of a product with 1,024 rows.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in], of any float type; not copied."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, [..., out] in the type of `x`."""
        return F.linear(x, self.weight.to(x.dtype))


class InvariantLinear(nn.Module):
    """A linear layer on a GPU that is batch-invariant: no bit of a row depends on other rows."""

    def __init__(self, layer: nn.Module) -> None:
        """`layer`: of floats, or of bitsandbytes in 4 bits; its weight is not copied."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return x [T, in] times the weight, [T, out] in the type of `x`."""
        weight: Any = self.layer.weight
        state = getattr(weight, "quant_state", None)
        if state is not None:
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(weight.data, state)
        return float_linear(x, weight.to(x.dtype))


def make_products_invariant(layers: nn.Module) -> None:
    """Replace the products of `layers` whose bits may depend on the number of rows on a GPU.

    Those of int8 are exact and stay. Those of fp8 have one order of sums for any number of
    rows, and stay too.
    """
    for name, layer in list(layers.named_modules()):
        if isinstance(layer, nn.Linear):  # Linear4bit is one
            layers.set_submodule(name, InvariantLinear(layer))


def widen_products(model: nn.Module) -> None:
    """Make the linear layers of `model` multiply in float32; their weights stay as they are."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            model.set_submodule(name, WideLinear(layer.weight))
        elif hasattr(layer, "compute_dtype"):  # bitsandbytes' Linear4bit
            layer.compute_dtype = torch.float32
