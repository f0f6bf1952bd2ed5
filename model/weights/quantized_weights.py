"""Quantizes a checkpoint from file to file, so that memory holds a small part of it at a time."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.quantizers import AutoHfQuantizer

from model.evabyte.modeling import EvaByteForCausalLM
from model.weights.checkpoint import INDEX_FILE, Checkpoint

MAX_FILE_BYTES = 64 * 1024**2
"""Of each file that is written; until it is, it is in memory."""


def write_quantized(
    checkpoint: Checkpoint,
    folder: Path,
    quantization: BitsAndBytesConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Write `checkpoint` to `folder`, its linear layers quantized on `device`, the rest in `dtype`.

    The files are those that transformers writes of a model that it has quantized, and loads.
    """
    layers = _Layers(checkpoint, quantization, device, dtype)
    files = _Files(folder)
    for path in checkpoint.weight_files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - an open file is no dictionary
                files.add(layers.stored(name, file.get_tensor(name).to(dtype)))
    files.end()
    layers.model.config.save_pretrained(folder)


class _Layers:
    """The model without weights, whose linear layers are those of bitsandbytes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        quantization: BitsAndBytesConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        config = copy.deepcopy(checkpoint.config)
        config.dtype = dtype
        with torch.device("meta"):
            self.model = EvaByteForCausalLM(config)
        self._device = device
        self._quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
        self._quantizer.preprocess_model(self.model, dtype=dtype, device_map={"": device})
        self._quantizer.postprocess_model(self.model)

    def stored(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """What is stored of `weight`, the parameter `name`: by name, on the CPU."""
        if not self._quantizer.param_needs_quantization(self.model, name):
            return {name: weight}
        layer_name, _, _ = name.rpartition(".")
        layer = self.model.get_submodule(layer_name)
        empty = layer.weight
        quantize = self._quantizer.get_quantize_ops()
        layer.weight = quantize.convert({name: weight.to(self._device)}, model=self.model)[name]
        stored = layer.state_dict(prefix=f"{layer_name}.")
        layer.weight = empty
        return {stored_name: tensor.cpu() for stored_name, tensor in stored.items()}


class _Files:
    """Files of weights of a limited size, and their index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, Tensor] = {}
        self._num_bytes = 0
        self._file_of: dict[str, str] = {}

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Write these, by name, now or with those that follow."""
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self._tensors and self._num_bytes + num_bytes > MAX_FILE_BYTES:
            self._write()
        self._tensors |= tensors
        self._num_bytes += num_bytes

    def end(self) -> None:
        """Write what is left, and the index."""
        self._write()
        index: dict[str, Any] = {"metadata": {}, "weight_map": self._file_of}
        (self._folder / INDEX_FILE).write_text(json.dumps(index))

    def _write(self) -> None:
        name = f"model-{len(set(self._file_of.values())) + 1:05}.safetensors"
        save_file(self._tensors, self._folder / name, metadata={"format": "pt"})
        self._file_of |= dict.fromkeys(self._tensors, name)
        self._tensors, self._num_bytes = {}, 0
