"""Quantizes the linear layers of a checkpoint to fp8, and loads the result.

A quantized layer has two tensors in place of `weight`: `weight` in e4m3, and `weight_scales`.
"""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from model.errors import CheckpointInvalid
from model.evabyte.configuration import EvaByteConfig
from model.evabyte.linear_layers import Fp8Linear
from model.evabyte.modeling import EvaByteForCausalLM
from model.ops.backend import Backend
from model.ops.fp8_linear import FP8, quantize_rows
from model.weights.checkpoint import Checkpoint
from model.weights.hub import WEIGHTS
from model.weights.quantized_weights import WeightFiles

# Stands in the configuration of what is stored, so that it is not a checkpoint to load by its name.
QUANTIZATION_CONFIG = {"quant_method": "evascore_fp8"}


def write_fp8(
    checkpoint: Checkpoint, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Write `checkpoint` to `folder`: linear layers quantized on `device`, the rest in `dtype`."""
    files = WeightFiles(folder)
    for tensors in quantized_tensors(checkpoint, device=device, dtype=dtype):
        files.add({name: tensor.cpu() for name, tensor in tensors.items()})
    files.end()
    config = copy.deepcopy(checkpoint.config)
    config.dtype, config.quantization_config = dtype, QUANTIZATION_CONFIG
    config.save_pretrained(folder)


def read_fp8(folder: Path, *, device: torch.device, backend: Backend) -> EvaByteForCausalLM:
    """Return the model that `write_fp8` wrote to `folder`, ready to score; files stay mapped."""
    config = EvaByteConfig.from_pretrained(folder)
    return _model_of(config, _stored_tensors(folder, device), backend=backend)


def quantize_to_fp8(
    checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, backend: Backend
) -> EvaByteForCausalLM:
    """Return the quantized model of `checkpoint` on `device`, ready to score."""
    config = copy.deepcopy(checkpoint.config)
    config.dtype = dtype
    tensors = quantized_tensors(checkpoint, device=device, dtype=dtype)
    return _model_of(config, tensors, backend=backend)


def quantized_tensors(
    checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype
) -> Iterator[dict[str, Tensor]]:
    """Yield what takes the place of each tensor of the checkpoint, by name, on `device`."""
    layers = _quantized_layers(_without_weights(checkpoint.config))
    for path in checkpoint.weight_files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - an open file is not a dictionary
                tensor = file.get_tensor(name).to(device=device, dtype=dtype)
                layer, _, kind = name.rpartition(".")
                if layer not in layers or kind != "weight":
                    yield {name: tensor}
                    continue
                # Not by the kernel: so the stored weights are the same on every device.
                rows = quantize_rows(tensor, backend="torch")
                yield {name: rows.values, f"{layer}.weight_scales": rows.scales}


def _model_of(
    config: EvaByteConfig, tensors: Iterable[dict[str, Tensor]], *, backend: Backend
) -> EvaByteForCausalLM:
    """Return the model with `tensors` as its weights; they are not copied.

    Raises:
        CheckpointInvalid: there is no tensor for a parameter.
    """
    model = _without_weights(config)
    for name, layer in _quantized_layers(model).items():
        with torch.device("meta"):
            weight = torch.empty(layer.out_features, layer.in_features, dtype=FP8)
            scales = torch.empty(layer.out_features)
        model.set_submodule(name, Fp8Linear(weight, scales, backend))
    missing = set(model.state_dict())
    for some in tensors:
        model.load_state_dict(some, strict=False, assign=True)
        missing -= some.keys()
    if missing:
        raise CheckpointInvalid(
            f"the checkpoint has no tensor {min(missing)}; copy all of its {WEIGHTS}"
        )
    return model.eval().requires_grad_(False)


def _stored_tensors(folder: Path, device: torch.device) -> Iterator[dict[str, Tensor]]:
    for path in sorted(folder.glob(WEIGHTS)):
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - as above


def _without_weights(config: EvaByteConfig) -> EvaByteForCausalLM:
    with torch.device("meta"):
        return EvaByteForCausalLM(config)


def _quantized_layers(model: EvaByteForCausalLM) -> dict[str, nn.Linear]:
    """Return the linear layers of attention and feed-forward by name: all but `lm_head`."""
    return {
        f"model.layers.{name}": layer
        for name, layer in model.model.layers.named_modules()
        if type(layer) is nn.Linear
    }
