"""Quantizes a checkpoint from file to file, with a small part of it in memory at a time."""

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
"""Largest file that is written; it is in memory until then."""


def write_quantized(
    checkpoint: Checkpoint,
    folder: Path,
    quantization: BitsAndBytesConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Write `checkpoint` to `folder`: linear layers quantized on `device`, the rest in `dtype`.

    The files are in the format that transformers writes and loads for quantized models.
    """
    layers = _Layers(checkpoint, quantization, device, dtype)
    files = WeightFiles(folder)
    for path in checkpoint.weight_files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - an open file is not a dictionary
                files.add(layers.stored(name, file.get_tensor(name).to(dtype)))
    files.end()
    layers.model.config.save_pretrained(folder)


class _Layers:
    """The model without weights and with the linear layers of bitsandbytes."""

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
        """Return the tensors to store for the parameter `name`: by name, on the CPU."""
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


class WeightFiles:
    """Weight files of limited size, and their index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, Tensor] = {}
        self._num_bytes = 0
        self._file_of: dict[str, str] = {}

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Take tensors by name; write them now or with later ones."""
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self._tensors and self._num_bytes + num_bytes > MAX_FILE_BYTES:
            self._write()
        self._tensors |= tensors
        self._num_bytes += num_bytes

    def end(self) -> None:
        """Write the remaining tensors and the index."""
        self._write()
        index: dict[str, Any] = {"metadata": {}, "weight_map": self._file_of}
        (self._folder / INDEX_FILE).write_text(json.dumps(index))

    def _write(self) -> None:
        name = f"model-{len(set(self._file_of.values())) + 1:05}.safetensors"
        save_file(self._tensors, self._folder / name, metadata={"format": "pt"})
        self._file_of |= dict.fromkeys(self._tensors, name)
        self._tensors, self._num_bytes = {}, 0
