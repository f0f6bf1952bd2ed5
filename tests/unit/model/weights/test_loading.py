"""What `Setup.choose` makes of the device, data type and kernels that were asked for."""

from dataclasses import replace

import pytest
import torch

from model import DeviceUnavailable
from model.evabyte.linear_layers import InvariantLinear
from model.machine import cpu
from model.weights import loading
from model.weights.checkpoint import find_checkpoint
from model.weights.loading import Setup, load_weights
from model.weights.quantization import Quantization

NONE = Quantization("none", None)


@pytest.mark.parametrize(
    ("dtype", "is_slow", "chosen", "is_widened"),
    [
        ("auto", True, "float32", False),
        ("float32", True, "float32", False),
        ("bfloat16", True, "bfloat16", True),
        ("bfloat16", False, "bfloat16", False),
    ],
)
def test_cpu_widens_only_bfloat16_and_only_where_it_is_slow(
    dtype, is_slow, chosen, is_widened, monkeypatch
):
    monkeypatch.setattr(loading, "is_bfloat16_slow", lambda: is_slow)
    setup = Setup.choose("cpu", dtype, "auto", NONE)
    assert (setup.dtype, setup.is_widened) == (chosen, is_widened)
    assert (setup.backend, setup.default_pass_bytes) == ("torch", 2048)


@pytest.mark.parametrize(
    ("quantization", "dtype", "speed", "is_slow", "begins"),
    [
        ("int8", "float32", 0.9, False, "int8 saves memory but no time on this CPU"),
        ("int8", "float32", 4.0, False, None),
        ("fp8", "float32", 4.0, False, "fp8 saves memory but no time on a CPU"),
        ("none", "bfloat16", 4.0, True, "bfloat16 saves memory but no time on this CPU"),
        ("none", "bfloat16", 0.9, False, None),
        ("none", "float32", 0.9, True, None),
    ],
)
def test_mode_that_saves_no_time_here_says_so(
    quantization, dtype, speed, is_slow, begins, monkeypatch
):
    monkeypatch.setattr(loading, "is_bfloat16_slow", lambda: is_slow)
    monkeypatch.setattr(loading, "int8_speed", lambda: speed)
    advice = Setup.choose("cpu", dtype, "auto", Quantization(quantization, None)).advice()
    assert (advice is None) if begins is None else advice.startswith(begins)


def test_kernels_that_the_device_cannot_run_are_refused():
    with pytest.raises(DeviceUnavailable):
        Setup.choose("cpu", "auto", "triton", NONE)


@pytest.mark.parametrize("is_reproducible", [False, True])
def test_products_are_batch_invariant_only_where_that_is_asked_for(
    is_reproducible, tiny_checkpoint
):
    setup = Setup.choose("cpu", "auto", "torch", NONE, is_reproducible=is_reproducible)
    found = find_checkpoint(str(tiny_checkpoint))
    for backend, num_layers in (("torch", 0), ("triton", 14 if is_reproducible else 0)):
        model = load_weights(
            found,
            replace(setup, backend=backend),
            revision="any",
            on_phase=lambda phase: None,
        )
        layers = [layer for layer in model.modules() if isinstance(layer, InvariantLinear)]
        assert len(layers) == num_layers


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_freed_memory_is_kept_once_the_model_is_loaded(device, tiny_checkpoint, monkeypatch):
    kept: list[int] = []
    load = loading.load_model
    monkeypatch.setattr(cpu, "_set_allocator", lambda **options: kept.append(options["kept_bytes"]))
    # There is no GPU: its weights are on the CPU.
    monkeypatch.setattr(loading, "use_device", lambda device: None)
    monkeypatch.setattr(
        loading,
        "load_model",
        lambda found, *, device, dtype: load(found, device="cpu", dtype=dtype),
    )
    setup = Setup.choose("cpu", "float32", "torch", NONE)
    found = find_checkpoint(str(tiny_checkpoint))
    load_weights(
        found,
        replace(setup, device=torch.device(device)),
        revision="any",
        on_phase=lambda phase: None,
    )
    assert kept == [cpu.FIRST_KEPT_BLOCK_BYTES, cpu.MAX_KEPT_BYTES]
