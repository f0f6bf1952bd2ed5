"""Joins linear layers that read the same rows: one product instead of two or three.

On a GPU one product of many outputs fills more of the machine than several of few: with 512 rows
the queries alone give work to 55 % of an L4, queries, keys and values together to 83 % (computed).
On a CPU a product gains nothing, see docs/experiments.md. Checkpoints and the cache of quantized
weights keep the published names: layers are joined after they are loaded.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model.evabyte.linear_layers import Fp8Linear, Int8Linear
from model.evabyte.modeling import EvaByteForCausalLM
from model.ops.fp8_linear import FP8


def fuse_products(model: EvaByteForCausalLM) -> None:
    """Join queries, keys and values of each layer, and its gate and up products."""
    layers: Any = model.model.layers
    for layer in layers:
        _fuse(layer.self_attn, ("q_proj", "k_proj", "v_proj"), "qkv_proj")
        _fuse(layer.mlp, ("gate_proj", "up_proj"), "gate_up_proj")


def _fuse(module: nn.Module, names: Sequence[str], fused_name: str) -> None:
    """Replace the layers `names` of `module` by one, where such a layer exists."""
    fused = fused_layer([module.get_submodule(name) for name in names])
    if fused is None:
        return
    setattr(module, fused_name, fused)
    for name in names:
        delattr(module, name)


def fused_layer(layers: Sequence[Any]) -> nn.Module | None:
    """Return the layer whose outputs are those of `layers`, end to end.

    None where there is none: NF4 weights that do not end at a block of values with one scale.
    """
    kind = type(layers[0])
    assert all(type(layer) is kind for layer in layers)
    if kind is Int8Linear:
        weight = torch.cat([layer.weight for layer in layers])
        absmax = torch.cat([layer.weight_absmax for layer in layers])
        return Int8Linear(weight, absmax, layers[0].backend)
    if kind is Fp8Linear:
        # Joined as bytes, which every device can.
        weight = torch.cat([layer.weight.view(torch.uint8) for layer in layers])
        scales = torch.cat([layer.weight_scales for layer in layers])
        return Fp8Linear(weight.view(FP8), scales, layers[0].backend)
    if kind is nn.Linear:
        weight = torch.cat([layer.weight.detach() for layer in layers])
        num_out, num_in = weight.shape
        fused = nn.Linear(num_in, num_out, bias=False, device="meta")
        fused.weight = nn.Parameter(weight, requires_grad=layers[0].weight.requires_grad)
        return fused
    return _fused_4bit_layer(layers) if hasattr(layers[0], "compute_dtype") else None


def _fused_4bit_layer(layers: Sequence[Any]) -> nn.Module | None:
    """Join layers of bitsandbytes: their packed values and the scales of their blocks."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Linear4bit, Params4bit

    weights = [layer.weight for layer in layers]
    states = [weight.quant_state for weight in weights]
    first = states[0]
    if any(state.nested or math.prod(state.shape) % state.blocksize for state in states):
        return None
    num_out, num_in = sum(state.shape[0] for state in states), first.shape[1]
    state = QuantState(
        absmax=torch.cat([state.absmax for state in states]),
        shape=torch.Size((num_out, num_in)),
        code=first.code,
        blocksize=first.blocksize,
        quant_type=first.quant_type,
        dtype=first.dtype,
    )
    fused = Linear4bit(
        num_in, num_out, bias=False, compute_dtype=layers[0].compute_dtype, device="meta"
    )
    fused.weight = Params4bit(
        torch.cat([weight.data for weight in weights]),
        quant_state=state,
        blocksize=first.blocksize,
        compress_statistics=weights[0].compress_statistics,
        quant_type=first.quant_type,
        quant_storage=weights[0].quant_storage,
        module=fused,
        bnb_quantized=True,
    )
    fused.quant_state = state
    fused.support_avx512bf16_for_cpu = layers[0].support_avx512bf16_for_cpu
    return fused
