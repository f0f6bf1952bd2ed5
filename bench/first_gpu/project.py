"""Wraps the model's inner parts for the steps, so that only this module follows their changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from bench.first_gpu.sizes import Sizes
from model import EvaByteConfig, EvaByteForCausalLM, ModelInfo, Scorer
from model.canary import score_canary, tolerance_nats
from model.evabyte.linear_layers import (
    Fp8Linear,
    Int8Linear,
    InvariantLinear,
    QuantizedLinear,
)
from model.evabyte.pass_plan import PassPlan
from model.evabyte.transfers import tensors_in
from model.machine.cpu import keep_freed_memory
from model.machine.device import find_device, use_device
from model.ops import fp8_linear
from model.ops.backend import Backend
from model.ops.int8_linear.reference import LARGEST, quantize_rows
from model.ops.tiled_product.tiles import Tile
from model.packing import ROW_STEP, PackedLayout
from model.scoring.forward import cut_into_passes
from model.scoring.log_likelihood import ByteScores, begin_scoring
from model.weights.fingerprint import fingerprint_of
from model.weights.fused_products import fuse_products

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "model" / "checkpoints" / "demo"
ORACLE = REPOSITORY / "tests" / "oracle"
GPU_TESTS = REPOSITORY / "tests" / "unit" / "model"
KERNEL_TESTS = GPU_TESTS / "ops" / "kernels"
CLIENT_FOLDER = REPOSITORY / "client"
NO_REVISION = "0" * 16

__all__ = [
    "ROW_STEP",
    "ByteScores",
    "PassPlan",
    "Tile",
    "cut_into_passes",
    "fuse_products",
    "score_canary",
    "tensors_in",
    "tolerance_nats",
]


def set_up_process(device: str) -> None:
    """Make the settings of the process that a worker makes when it loads a model."""
    if device != "cpu":
        use_device(find_device(device))
    keep_freed_memory()


def new_model(device: str, sizes: Sizes, **changes: Any) -> EvaByteForCausalLM:
    """Make a model with random weights on the device; `changes` go into its configuration."""
    config = EvaByteConfig(**{**sizes.config, **changes})
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, sizes.dtype))
    return model.eval().requires_grad_(False)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the layers that quantization replaces, by their names."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and name != "lm_head"
    }


def int8_layer(weight: Tensor, backend: Backend) -> nn.Module:
    """Return the project's int8 layer of a weight."""
    rows = quantize_rows(weight)
    return Int8Linear(rows.values, rows.scales * LARGEST, backend)


def fp8_layer(weight: Tensor, backend: Backend) -> nn.Module:
    """Return the project's fp8 layer of a weight."""
    rows = fp8_linear.quantize_rows(weight, backend="torch")
    return Fp8Linear(rows.values, rows.scales, backend)


def invariant_layer(weight: Tensor, backend: Backend) -> nn.Module:
    """Return the layer of EVASCORE_REPRODUCIBLE of a weight; without kernels it is PyTorch's."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return InvariantLinear(layer) if backend == "triton" else layer


def fp8_product(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """Return PyTorch's product of x [T, in] and weight [out, in] as fp8 rows, to be run."""
    rows, weights = (fp8_linear.quantize_rows(each, backend="torch") for each in (x, weight))
    return lambda: fp8_linear.fp8_linear(rows, weights.values, weights.scales, backend="torch")


def set_backend(model: EvaByteForCausalLM, backend: Backend) -> None:
    """Choose the kernels or PyTorch for all operations of a model."""
    model.model.backend = backend
    set_backend_of_products(model, backend)


def set_backend_of_products(model: EvaByteForCausalLM, backend: Backend) -> None:
    """Choose the kernels or PyTorch for the products of quantized rows alone."""
    for layer in model.modules():
        if isinstance(layer, QuantizedLinear):
            layer.backend = backend


def score_pass(
    model: EvaByteForCausalLM, ids: Tensor, targets: Tensor, layout: PackedLayout
) -> ByteScores:
    """Compute layers and head of one packed pass as the scorer does: the bare model."""
    hidden = model.model(ids, layout)
    pending = begin_scoring(
        hidden,
        model.next_id_weight,
        targets,
        with_moments=False,
        top_k=0,
        backend=model.model.backend,
    )
    return pending.wait()


def plan_pass(model: EvaByteForCausalLM, ids: Tensor, layout: PackedLayout) -> PassPlan:
    """Return all that a pass needs besides weights; `tensors_in` yields its tensors."""
    return model.model.plan(ids, layout)


def run_layers(model: EvaByteForCausalLM, plan: PassPlan) -> Tensor:
    """Compute the layers of a planned pass: the normalised hidden states [T, channels]."""
    return model.model.run(plan)[0]


def scorer_of(model: EvaByteForCausalLM, pass_bytes: int, quantization: str) -> Scorer:
    """Return a scorer of a model that was not loaded from a checkpoint."""
    config, dtype = model.config, str(model.dtype).removeprefix("torch.")
    info = ModelInfo(
        name="random",
        fingerprint=fingerprint_of(NO_REVISION, config, dtype=dtype, quantization=quantization),
        revision=NO_REVISION,
        num_parameters=0,
        dtype=dtype,
        device=str(model.device),
        quantization=quantization,
        backend=model.model.backend,
        max_text_bytes=config.max_position_embeddings - 1,
        window_size=config.window_size,
        chunk_size=config.chunk_size,
        is_demo=False,
    )
    return Scorer(model, info, folder=DEMO, pass_bytes=pass_bytes)


def canary_of_demo(dtype: str, quantization: str) -> float | None:
    """Return the published score of the demo's canary in nats; None in a mode without one."""
    published = json.loads((DEMO / "canary.json").read_bytes())["log_likelihood_nats"]
    return published.get(dtype, {}).get(quantization)


def watch_compilation(tell: Callable[[float], None]) -> None:
    """Call `tell` with the seconds of each kernel that Triton compiles from now on."""
    from model.ops.compilation import watch_compilation as watch

    watch(tell)


def gpu_capability() -> int:
    """Return the compute capability of the GPU, 90 for 9.0."""
    from model.ops.launching import gpu_capability as of_triton

    return of_triton()


def leave_descriptors_out() -> None:
    """Have all products of this process in the plain form, which takes no tensor descriptors."""
    from model.ops.tiled_product import launch

    launch.may_be_described = lambda matrix: False


def launch_product(
    x: Tensor, weight: Tensor, scales: tuple[Tensor, Tensor], y: Tensor, tile: Tile
) -> None:
    """Launch the kernel of the int8 or the fp8 product with a tile of its own.

    x: [T, in] and weight: [out, in], both int8 or both e4m3; y: [T, out]; scales: [T] of the rows,
    [out] of the weight.
    """
    from model.ops.fp8_linear.kernel import fp8_linear_fwd_kernel
    from model.ops.int8_linear.kernel import int8_linear_fwd_kernel
    from model.ops.tiled_product.launch import launch_product as launch

    kernel = int8_linear_fwd_kernel if x.dtype == torch.int8 else fp8_linear_fwd_kernel
    launch(kernel, (x, weight), scales, y, tile)
