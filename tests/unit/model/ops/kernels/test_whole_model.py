"""All kernels together give the scores that the authors' code gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from contract.grammar.vocabulary import encode
from model import EvaByteConfig, EvaByteForCausalLM
from model.evabyte.linear_layers import Int8Linear, make_products_invariant
from model.scoring.log_likelihood import score_bytes
from model.weights.fused_products import fuse_products

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
    scores = score_bytes(
        causal_lm.model(input_ids, causal_lm.lay_out(list(CASES.values()))),
        causal_lm.next_id_weight,
        targets,
        with_moments=False,
        top_k=0,
        backend=causal_lm.model.backend,
    )

    expected = [golden[f"{name}/logp"][:num_bytes] for name, num_bytes in CASES.items()]
    np.testing.assert_allclose(scores.log_prob, np.concatenate(expected), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_int8_rows_of_norms_and_gates_give_what_pytorch_gives(device):
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
        absmax = layer.weight.abs().amax(dim=1)
        weight = (layer.weight / absmax[:, None] * 127).round().to(torch.int8)
        model.model.layers.set_submodule(name, Int8Linear(weight, absmax, "torch"))
    model.to(device)
    ids, layout = torch.arange(50, device=device) + 64, model.lay_out([9, 41])
    expected = model.model(ids, layout)

    fuse_products(model)
    model.model.backend = "triton"
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.backend = "triton"
    ours = model.model(ids, layout)

    # A number that falls on the other side of a rounding to int8 moves the results after it.
    assert (ours - expected).norm() / expected.norm() < 0.01
