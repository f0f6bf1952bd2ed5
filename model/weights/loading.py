"""Chooses device, data type and kernels, and loads the weights of a checkpoint accordingly."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from model.errors import OutOfMemory
from model.evabyte.linear_layers import make_products_invariant
from model.evabyte.modeling import EvaByteForCausalLM
from model.machine.cpu import (
    MIN_SPEED_UP,
    int8_speed,
    is_bfloat16_slow,
    keep_freed_memory,
    return_freed_memory,
    use_onednn_for_float32,
)
from model.machine.device import find_device, translated_memory_errors, use_device
from model.ops.backend import Backend, choose_backend
from model.weights.checkpoint import Checkpoint, load_model
from model.weights.fused_products import fuse_products
from model.weights.hub import check_downloads
from model.weights.quantization import Quantization, check_capability, load_quantized_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Setup:
    """The device that a model computes on, and the form of its weights and products."""

    device: torch.device
    backend: Backend
    dtype: str
    """The type of the weights, a key of `DTYPES`."""
    is_widened: bool
    """Whether products of bfloat16 weights are computed in float32."""
    quantization: Quantization
    is_reproducible: bool = False
    """Whether products must not depend on the number of their rows."""

    @classmethod
    def choose(
        cls,
        device: str,
        dtype: str,
        kernels: str,
        quantization: Quantization,
        *,
        is_reproducible: bool = False,
    ) -> "Setup":
        """Resolve what was asked for; the values are those of `Scorer.load`.

        Raises:
            DeviceUnavailable: there is no such device here, or no such kernels for it.
            QuantizationUnavailable: the device has no products of that quantization.
        """
        target = find_device(device)
        check_capability(quantization.mode, target)
        backend = choose_backend(kernels, target)
        is_cpu = target.type == "cpu"
        if dtype == "auto":
            dtype = "float32" if is_cpu else "bfloat16"
        is_widened = is_cpu and dtype == "bfloat16" and is_bfloat16_slow()
        return cls(target, backend, dtype, is_widened, quantization, is_reproducible)

    @property
    def is_cpu(self) -> bool:
        """Whether the model computes on a CPU."""
        return self.device.type == "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the weights."""
        return DTYPES[self.dtype]

    def advice(self) -> str | None:
        """Say that the mode saves memory but no time on this machine; None where that is not so.

        It measures products for some milliseconds. Call it when the weights are loaded.
        """
        if self.is_cpu and self.quantization.mode == "int8" and int8_speed() < MIN_SPEED_UP:
            return (
                "int8 saves memory but no time on this CPU: its products run at "
                f"{int8_speed():.1f} times the speed of float32"
            )
        if self.is_cpu and self.quantization.mode == "fp8":
            return (
                "fp8 saves memory but no time on a CPU: its products are imitated in float64, "
                "for tests; use int8"
            )
        if self.is_widened:
            return (
                "bfloat16 saves memory but no time on this CPU: its products are computed in "
                "float32, which is faster here"
            )
        return None

    @property
    def default_pass_bytes(self) -> int:
        """How many bytes a pass reads unless the caller says it."""
        return 2048 if self.is_cpu else 8192


def load_weights(
    checkpoint: Checkpoint,
    setup: Setup,
    *,
    revision: str,
    on_phase: Callable[[str], None],
) -> EvaByteForCausalLM:
    """Return the model of `checkpoint`, ready to score as `setup` says.

    `revision` stands for the weights; `on_phase` is called as `Scorer.load` says.

    Raises:
        OutOfMemory: the weights do not fit into the memory of the device.
        QuantizationUnavailable: there is no such mode, or bitsandbytes is not installed.
    """
    _prepare_process(setup)
    with translated_memory_errors():
        if setup.quantization.mode == "none":
            check_downloads(checkpoint.weight_files)
            on_phase("load")
            model = load_model(checkpoint, device=setup.device, dtype=setup.torch_dtype)
        else:
            model = load_quantized_model(
                checkpoint,
                setup.quantization,
                revision=revision,
                device=setup.device,
                dtype=setup.torch_dtype,
                backend=setup.backend,
                on_phase=on_phase,
            )
        if setup.is_widened:
            model.compute_in_float32()
        if not setup.is_cpu:
            fuse_products(model)
            # The separate weights left holes, which passes do not fit into.
            torch.cuda.empty_cache()
        if setup.is_reproducible and setup.backend == "triton":
            make_products_invariant(model.model.layers)
    # With a GPU too: results come in arrays of megabytes.
    keep_freed_memory()
    model.model.backend = setup.backend
    return model


@contextlib.contextmanager
def named_memory_errors(checkpoint: str, device: torch.device) -> Iterator[None]:
    """Say in an `OutOfMemory` which checkpoint does not fit, and what to do."""
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(
            f"checkpoint {checkpoint}: its weights do not fit into the memory of {device}; "
            "use quantization int8 or nf4, or a device with more memory"
        ) from error


def _prepare_process(setup: Setup) -> None:
    """Make the settings of the whole process that `setup` needs while it loads and computes."""
    if setup.device.type == "cuda":
        use_device(setup.device)
    if setup.is_cpu and (setup.dtype == "float32" or setup.is_widened):
        use_onednn_for_float32()
    return_freed_memory()
