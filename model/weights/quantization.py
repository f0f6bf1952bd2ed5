"""Loads models with quantized weights: bitsandbytes makes int8 and nf4, `fp8_weights` fp8.

Embeddings, norms, `adaptive_mu_k`, `adaptive_phi` and `lm_head` keep the model's own type.
bitsandbytes is imported only when int8 or nf4 is asked for.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from model.errors import QuantizationUnavailable
from model.evabyte.configuration import EvaByteConfig
from model.evabyte.linear_layers import Int8Linear
from model.evabyte.modeling import EvaByteForCausalLM
from model.ops.backend import Backend, has_fp8_products
from model.weights.checkpoint import CONFIG_FILE, Checkpoint, load_model
from model.weights.fp8_weights import quantize_to_fp8, read_fp8, write_fp8
from model.weights.hub import check_downloads
from model.weights.quantized_cache import QuantizedCache
from model.weights.quantized_weights import write_quantized

QUANTIZATIONS = ("none", "int8", "nf4", "fp8")

UNQUANTIZED_LAYERS = ["lm_head"]

# Raise it when the same checkpoint and mode are stored differently.
CACHE_LAYOUT = "2"


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are quantized, and where the result is kept for the next load."""

    mode: str
    """One of `QUANTIZATIONS`."""
    cache_dir: Path | None  # None keeps nothing


def load_quantized_model(
    checkpoint: Checkpoint,
    quantization: Quantization,
    *,
    revision: str,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend,
    on_phase: Callable[[str], None],
) -> EvaByteForCausalLM:
    """Return the quantized model of `checkpoint` on `device`, from the cache if it is there.

    `revision` is the digest of the weights. `on_phase` is called when a phase begins: import (of
    bitsandbytes, not for fp8), checksum, quantize (unless the cache has the weights), load.

    Raises:
        QuantizationUnavailable: there is no such mode, or bitsandbytes is not installed.
    """
    if quantization.mode == "fp8":
        form: QuantizedForm = Fp8Form(checkpoint, device, dtype, backend)
    else:
        on_phase("import")
        config = bits_and_bytes_config(quantization.mode, dtype)
        form = BitsAndBytesForm(checkpoint, device, dtype, backend, config)
        on_phase("checksum")

    def begin_to_quantize() -> None:
        check_downloads(checkpoint.weight_files)
        on_phase("quantize")

    def write(folder: Path) -> None:
        begin_to_quantize()
        form.write(folder)

    def make() -> EvaByteForCausalLM:
        begin_to_quantize()
        return form.make()

    def load(folder: Path) -> EvaByteForCausalLM:
        on_phase("load")
        return form.load(folder)

    if quantization.cache_dir is None:
        return make()
    identity = {
        "weights": revision,
        "config": hashlib.sha256((checkpoint.folder / CONFIG_FILE).read_bytes()).hexdigest(),
        "quantization": quantization.mode,
        "dtype": str(dtype),
        "layout": CACHE_LAYOUT,
        **{name: version(name) for name in form.libraries},
    }
    cache = QuantizedCache(quantization.cache_dir, identity)
    return cache.load_or_make(load=load, write=write, make=make)


@dataclass(frozen=True, slots=True)
class QuantizedForm(ABC):
    """Makes, writes and loads the quantized model of a checkpoint."""

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    backend: Backend

    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    """Those whose version may change what is written."""

    @abstractmethod
    def make(self) -> EvaByteForCausalLM:
        """Return the model, quantized in memory."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the quantized weights to `folder`."""

    @abstractmethod
    def load(self, folder: Path) -> EvaByteForCausalLM:
        """Return the model that `write` wrote."""


@dataclass(frozen=True, slots=True)
class BitsAndBytesForm(QuantizedForm):
    """int8 and nf4."""

    config: BitsAndBytesConfig
    libraries: ClassVar[tuple[str, ...]] = ("bitsandbytes", "transformers")

    def make(self) -> EvaByteForCausalLM:
        """Return the model, quantized in memory."""
        return self._loaded(self.checkpoint, self.config)

    def write(self, folder: Path) -> None:
        """Write the quantized weights to `folder`."""
        write_quantized(self.checkpoint, folder, self.config, device=self.device, dtype=self.dtype)

    def load(self, folder: Path) -> EvaByteForCausalLM:
        """Return the model that `write` wrote."""
        config = EvaByteConfig.from_pretrained(folder)
        return self._loaded(Checkpoint(folder, config, weight_files=()), None)

    def _loaded(
        self, checkpoint: Checkpoint, config: BitsAndBytesConfig | None
    ) -> EvaByteForCausalLM:
        model = load_model(checkpoint, device=self.device, dtype=self.dtype, quantization=config)
        prepare_products(model, self.backend)
        return model


@dataclass(frozen=True, slots=True)
class Fp8Form(QuantizedForm):
    """fp8."""

    def make(self) -> EvaByteForCausalLM:
        """Return the model, quantized in memory."""
        return quantize_to_fp8(
            self.checkpoint, device=self.device, dtype=self.dtype, backend=self.backend
        )

    def write(self, folder: Path) -> None:
        """Write the quantized weights to `folder`."""
        write_fp8(self.checkpoint, folder, device=self.device, dtype=self.dtype)

    def load(self, folder: Path) -> EvaByteForCausalLM:
        """Return the model that `write` wrote."""
        return read_fp8(folder, device=self.device, backend=self.backend)


def check_capability(quantization: str, device: torch.device) -> None:
    """Refuse fp8 on a GPU whose tensor cores do not multiply it. On a CPU it is imitated.

    Raises:
        QuantizationUnavailable: with one line that says what to use.
    """
    if quantization == "fp8" and not has_fp8_products(device):
        major, minor = torch.cuda.get_device_capability(device)
        raise QuantizationUnavailable(
            f"quantization fp8: {device} has compute capability {major}.{minor}, and fp8 needs "
            "8.9 or 9.0 (L4, L40S, H100, H200); use quantization int8 or nf4"
        )


def bits_and_bytes_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return how transformers quantizes the linear layers: `quantization` is int8 or nf4.

    int8 has threshold 0. The default of bitsandbytes leaves columns with large activations in 16
    bits; which columns depends on all texts of a pass. `dtype` is the type of the activations.

    Raises:
        QuantizationUnavailable: there is no such mode, or bitsandbytes is not installed.
    """
    if quantization not in ("int8", "nf4"):
        raise QuantizationUnavailable(
            f"quantization {quantization}: unknown; use one of {', '.join(QUANTIZATIONS)}"
        )
    _import_bitsandbytes(quantization)
    if quantization == "int8":
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=UNQUANTIZED_LAYERS
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=UNQUANTIZED_LAYERS,
    )


def prepare_products(model: nn.Module, backend: Backend) -> None:
    """Replace the products of the layers of bitsandbytes by those that scoring uses."""
    import bitsandbytes as bnb

    for name, layer in list(model.named_modules()):
        if isinstance(layer, bnb.nn.Linear8bitLt):
            stored: Any = layer.weight
            model.set_submodule(name, Int8Linear(stored.CB, stored.SCB, backend))
        elif isinstance(layer, bnb.nn.Linear4bit):
            # The fused CPU product crashes unless the widths are multiples of 64 and 32. It
            # rounds float32 to bfloat16, and exists only on CPUs with AVX512-BF16. From 512 rows
            # on, dequantizing the weight for each product is as fast.
            layer.support_avx512bf16_for_cpu = False


def _import_bitsandbytes(quantization: str) -> None:
    """Import it without its advice to install `kernels`, which downloads code at import."""
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401 - transformers finds it loaded
    except ImportError as error:
        raise QuantizationUnavailable(
            f"quantization {quantization}: the package bitsandbytes cannot be imported ({error}); "
            "install requirements.txt, or use quantization none"
        ) from error
    finally:
        logger.setLevel(before)
