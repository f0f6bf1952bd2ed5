"""All kernels together give the scores that the authors' code gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
from safetensors.numpy import load_file

from contract.grammar.vocabulary import encode
from model import EvaByteConfig, EvaByteForCausalLM
from model.evabyte.linear_layers import (
    Fp8Linear,
    Int8Linear,
    QuantizedLinear,
    make_products_invariant,
)
from model.ops import fp8_linear, int8_linear
from model.ops.backend import has_fp8_products
from model.scoring.log_likelihood import begin_scoring
from model.weights.fused_products import fuse_products

IS_INTERPRETED = triton.knobs.runtime.interpret
ORACLE = Path(__file__).parents[4] / "oracle"
# Bytes of a recorded text: none, one, and as many as cross a window of 64. A score depends on what
# comes before alone, so that the beginning of a text has the beginning of its scores.
CASES = {"empty": 0, "one_ff": 1, "english_127": 68}


@pytest.fixture(params=["separate", "joined"])
def causal_lm(device: torch.device, request) -> EvaByteForCausalLM:
    """The model with products as they are, or joined and batch-invariant."""
    model = EvaByteForCausalLM.from_pretrained(ORACLE / "small").to(device)
    model.model.backend = "triton"
    if request.param == "joined":
        fuse_products(model)
        make_products_invariant(model.model.layers)
    return model


@torch.inference_mode()
def test_packed_texts_have_the_scores_of_the_authors_code(causal_lm, device):
    recorded = json.loads((ORACLE / "golden.json").read_bytes())["cases"]
    texts = {case["name"]: bytes.fromhex(case["hex"]) for case in recorded if "hex" in case}
    golden = load_file(ORACLE / "golden.safetensors")
    rows = [encode(texts[name][:num_bytes]) for name, num_bytes in CASES.items()]

    input_ids = torch.tensor([token for ids in rows for token in ids[:-1]], device=device)
    targets = torch.tensor([token for ids in rows for token in ids[1:]], device=device)
    pending = begin_scoring(
        causal_lm.model(input_ids, causal_lm.lay_out(list(CASES.values()))),
        causal_lm.next_id_weight,
        targets,
        with_moments=False,
        top_k=0,
        backend=causal_lm.model.backend,
    )

    expected = [golden[f"{name}/logp"][:num_bytes] for name, num_bytes in CASES.items()]
    np.testing.assert_allclose(pending.wait().log_prob, np.concatenate(expected), rtol=0, atol=1e-4)


def int8_layer(weight: torch.Tensor) -> Int8Linear:
    rows = int8_linear.quantize_rows(weight, backend="torch")
    return Int8Linear(rows.values, rows.scales * 127, "torch")


def fp8_layer(weight: torch.Tensor) -> Fp8Linear:
    rows = fp8_linear.quantize_rows(weight, backend="torch")
    return Fp8Linear(rows.values, rows.scales, "torch")


# What makes a layer, and how far the result may be off. A number that falls on the other side of a
# rounding to 8 bits moves the results after it; in fp8 the step is larger. Tensor cores add fp8
# products with about 14 bits: imitated, that moved the result by 0.044.
QUANTIZED = {int8_layer: 0.01, fp8_layer: 0.02 if IS_INTERPRETED else 0.1}
if torch.cuda.is_available() and not has_fp8_products(torch.device("cuda")):
    del QUANTIZED[fp8_layer]


@torch.inference_mode()
@pytest.mark.parametrize("make", QUANTIZED)
def test_quantized_rows_of_norms_and_gates_give_what_pytorch_gives(device, make):
    config = EvaByteConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=16,
        chunk_size=4,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = EvaByteForCausalLM(config).eval()
    layers = [
        (name, layer)
        for name, layer in model.model.layers.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    for name, layer in layers:
        model.model.layers.set_submodule(name, make(layer.weight))
    ids, layout = torch.arange(50) + 64, model.lay_out([9, 41])
    expected = model.model(ids, layout).to(device)
    model.to(device)

    fuse_products(model)
    model.model.backend = "triton"
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.backend = "triton"
    ours = model.model(ids.to(device), layout)

    assert (ours - expected).norm() / expected.norm() < QUANTIZED[make]
