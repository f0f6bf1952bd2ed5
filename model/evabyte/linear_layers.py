"""Linear layers without bias whose weights are of another type than what they multiply.

They stand in for `nn.Linear` and for bitsandbytes' layers once a model is loaded.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor, nn

from model.ops.backend import Backend
from model.ops.int8_linear import int8_linears


class Int8Linear(nn.Module):
    """A linear layer that holds what bitsandbytes calls CB and SCB.

    It stands in for `Linear8bitLt`, whose forward casts every input to float16, which overflows at
    65,504, and on CUDA takes the int32 sums through memory. `ops.int8_linear` does neither.
    """

    weight_absmax: Tensor

    def __init__(self, weight: Tensor, weight_absmax: Tensor, backend: Backend) -> None:
        """weight: [out, in] int8; weight_absmax: [out] float32."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("weight_absmax", weight_absmax)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, [..., out] in the type of `x`."""
        return project(x, self)[0]


class WideLinear(nn.Module):
    """A linear layer that widens its weight for each product, for CPUs that are faster so.

    The weight stays in memory as it is. Widening it costs 3 % of the product with 1,024 rows.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in], of any float type; not copied."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, [..., out] in the type of `x`."""
        return F.linear(x, self.weight.to(x.dtype))


def project(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """Return the products of the rows of `x` with the weights of several layers of one kind."""
    int8_layers = [layer for layer in layers if isinstance(layer, Int8Linear)]
    if len(int8_layers) < len(layers):
        return [layer(x) for layer in layers]
    weights = [(layer.weight, layer.weight_absmax) for layer in int8_layers]
    return int8_linears(x, weights, backend=int8_layers[0].backend)


def widen_products(model: nn.Module) -> None:
    """Have the linear layers of `model` multiply float32 rows; their weights stay as they are."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            model.set_submodule(name, WideLinear(layer.weight))
        elif hasattr(layer, "compute_dtype"):  # bitsandbytes' Linear4bit
            layer.compute_dtype = torch.float32
