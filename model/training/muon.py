"""Muon: momentum whose matrices are orthogonalized before they are applied.

Source: Keller Jordan et al., https://kellerjordan.github.io/posts/muon/ (2024), whose quintic
Newton-Schulz coefficients are used here.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NUM_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Push the singular values of each matrix towards 1. matrices: [N, out, in].

    They end between about 0.7 and 1.2, which serves as well as 1.
    """
    a, b, c = _COEFFICIENTS
    x = matrices
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized per matrix, scaled by sqrt(max(1, out / in))."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 0.012, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    # Without the closure of the base class, which nothing here needs.
    def step(self) -> None:  # type: ignore[override]
        """Update the matrices that have gradients."""
        for group in self.param_groups:
            same_shape: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape[parameter.shape].append(parameter)
            # One stack per shape: few large products instead of many small ones.
            for parameters in same_shape.values():
                self._update(parameters, group["lr"], group["momentum"])

    def _update(self, parameters: list[nn.Parameter], lr: float, momentum: float) -> None:
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(state["momentum"], momentum))
        num_out, num_in = parameters[0].shape
        scale = max(1.0, num_out / num_in) ** 0.5
        for parameter, step in zip(parameters, orthogonalize(torch.stack(directions)), strict=True):
            parameter.add_(step, alpha=-lr * scale)
