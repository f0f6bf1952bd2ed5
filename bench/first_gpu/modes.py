"""Makes one model whose linear layers can be exchanged for those of each mode, in memory."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.first_gpu import project
from bench.first_gpu.run import Run
from model import EvaByteForCausalLM
from model.ops.backend import Backend

PLAIN = "bf16"
MODES = (PLAIN, "int8", "fp8", "nf4")
# EVASCORE_REPRODUCIBLE: products of the plain mode that have one tile for any number of rows.
INVARIANT = "bf16_invariant"
# Which product is a mode's ceiling.
CEILING_OF = {"bf16": "bf16", "int8": "int8", "fp8": "fp8", "nf4": "bf16", INVARIANT: "bf16"}
# bitsandbytes' own int8 product; 6 is its default, which leaves some columns in 16 bits.
BITSANDBYTES_INT8 = {"bitsandbytes_int8_threshold_0": 0.0, "bitsandbytes_int8_threshold_6": 6.0}


def quantization_of(mode: str) -> str:
    """Return the setting of the scorer that loads the weights of `mode`."""
    return "none" if mode == PLAIN else mode


class Modes:
    """A model with random weights, and the linear layers of each mode that was used."""

    def __init__(self, run: Run) -> None:
        """Make the model on the device."""
        self._run = run
        began = time.perf_counter()
        self.model: EvaByteForCausalLM = project.new_model(run.device, run.sizes)
        project.fuse_products(self.model)
        run.synchronize()
        self.num_parameters = sum(each.numel() for each in self.model.parameters())
        self._plain = project.linear_layers(self.model)
        self._layers: dict[str, dict[str, nn.Module]] = {PLAIN: dict(self._plain)}
        project.set_backend(self.model, run.backend)
        seconds = round(time.perf_counter() - began, 2)
        run.empty_cache()
        holes_gb = round(run.unused_bytes() / 1e9, 3)
        run.put("weights made", seconds=seconds, parameters=self.num_parameters, holes_gb=holes_gb)

    def use(self, mode: str, backend: Backend | None = None) -> EvaByteForCausalLM:
        """Put the layers of `mode` into the model; make them first if they are new."""
        if mode not in self._layers:
            began = time.perf_counter()
            make = maker(mode, self._run.backend)
            self._layers[mode] = {
                name: make(layer.weight.data) for name, layer in self._plain.items()
            }
            self._run.synchronize()
            self._run.put(f"{mode} layers made", seconds=round(time.perf_counter() - began, 2))
        put_layers(self.model, self._layers[mode])
        project.set_backend(self.model, backend or self._run.backend)
        return self.model

    def weight_bytes(self, mode: str) -> int:
        """Return the memory of the weights of a mode; those that are not layers have 2 bytes."""
        in_layers = sum(layer.weight.numel() for layer in self._plain.values())
        others = 2 * (self.num_parameters - in_layers)
        return others + sum(map(layer_bytes, self._layers[mode].values()))

    def forget(self, mode: str) -> None:
        """Free the memory of a mode's layers."""
        self.use(PLAIN)
        self._layers.pop(mode, None)
        self._run.empty_cache()


def put_layers(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Replace submodules of a model by their names."""
    for name, layer in layers.items():
        model.set_submodule(name, layer)


def maker(mode: str, backend: Backend) -> Callable[[Tensor], nn.Module]:
    """Return what makes a layer of `mode` out of a weight."""
    if mode == "int8":
        return lambda weight: project.int8_layer(weight, backend)
    if mode == "fp8":
        return lambda weight: project.fp8_layer(weight, backend)
    if mode == "nf4":
        return _nf4_layer
    if mode == INVARIANT:
        return lambda weight: project.invariant_layer(weight, backend)
    return lambda weight: _bitsandbytes_int8_layer(weight, BITSANDBYTES_INT8[mode])


def layer_bytes(layer: nn.Module) -> int:
    """Return the memory of a layer's weight and scales."""
    tensors = [*layer.parameters(), *layer.buffers()]
    state: Any = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is not None:
        tensors.append(state.absmax)
    return sum(each.nbytes for each in tensors)


def _nf4_layer(weight: Tensor) -> nn.Module:
    bnb = _bitsandbytes()
    layer: Any = bnb.nn.Linear4bit(
        1, 1, bias=False, compute_dtype=weight.dtype, quant_type="nf4", device="meta"
    )
    layer.in_features, layer.out_features = weight.shape[1], weight.shape[0]
    parameter = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=False
    )
    layer.weight = parameter._quantize(weight.device)
    layer.quant_state = layer.weight.quant_state
    # As model/weights/quantization.py does.
    layer.support_avx512bf16_for_cpu = False
    return layer


def _bitsandbytes_int8_layer(weight: Tensor, threshold: float) -> nn.Module:
    bnb = _bitsandbytes()
    layer: Any = bnb.nn.Linear8bitLt(
        1, 1, bias=False, has_fp16_weights=False, threshold=threshold, device="meta"
    )
    layer.in_features, layer.out_features = weight.shape[1], weight.shape[0]
    parameter = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer.weight = parameter._quantize(torch.device(weight.device))
    return layer.eval()


def _bitsandbytes() -> Any:
    """Import it without its warnings: one at each product, and one at import."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes
