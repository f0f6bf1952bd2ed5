"""The warm-up launches every form of the kernels, so that no text waits until one is compiled.

Nothing is computed here: results are zeros, and a form shows in how it is launched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from triton.runtime.jit import JITFunction

from model import EvaByteConfig, EvaByteForCausalLM, ModelInfo, Scorer, ScoreRequest
from model.evabyte.linear_layers import Int8Linear
from model.weights.fused_products import fuse_products

Launches = set[tuple[Any, ...]]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """The forms launched: kernel, which arguments there are, and all that is compiled in."""
    found: Launches = set()

    def record(self: JITFunction, *args: Any, grid: Any, warmup: bool, **compiled_in: Any) -> None:
        given = tuple(arg is not None for arg in args)
        found.add((self.__name__, given, *sorted(compiled_in.items())))

    monkeypatch.setattr(JITFunction, "run", record)
    monkeypatch.setattr(torch, "empty", torch.zeros)
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    return found


@pytest.fixture
def scorer() -> Scorer:
    """An int8 model on the kernels, with windows of 16 tokens."""
    config = EvaByteConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        window_size=16,
        chunk_size=4,
    )
    model = EvaByteForCausalLM(config).eval()
    model.model.backend = "triton"
    for name, layer in list(model.model.layers.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            weight, absmax = layer.weight.sign().to(torch.int8), torch.ones(layer.out_features)
            model.model.layers.set_submodule(name, Int8Linear(weight, absmax, "triton"))
    fuse_products(model)
    info = ModelInfo(
        name="random",
        fingerprint="",
        revision="",
        num_parameters=0,
        dtype="float32",
        device="cpu",
        quantization="int8",
        backend="triton",
        max_text_bytes=3000,
        window_size=config.window_size,
        chunk_size=config.chunk_size,
        is_demo=False,
    )
    return Scorer(model, info, folder=Path(), pass_bytes=2048)


OUTPUTS = [(), ("bytes",), ("curvature",), ("top_k",), ("bytes", "top_k", "curvature")]


def test_no_text_needs_a_form_that_the_warm_up_did_not_launch(scorer, launches):
    scorer.warm_up()
    warm = launches.copy()

    for num_bytes in (1, 16, 17, 64, 65, 300, 600, 1200):
        for outputs in map(frozenset, OUTPUTS):
            top_k = 3 if "top_k" in outputs else 0
            scorer.score([ScoreRequest(text=bytes(num_bytes), outputs=outputs, top_k=top_k)])
        scorer.score([ScoreRequest(context=bytes(num_bytes), continuations=(b"a", b"b"))])
        scorer.score([ScoreRequest(text=bytes(num_bytes), next_chars=1)])

    assert {name for name, *_ in warm} >= {"int8_linear_fwd_kernel", "chunk_summaries_fwd_kernel"}
    assert launches == warm
