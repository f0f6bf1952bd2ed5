"""Joined products give what the separate ones give, in every mode."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest
from model.evabyte.linear_layers import Fp8Linear, Int8Linear
from model.weights import loading
from model.weights.fused_products import fuse_products, fused_layer

# Texts within a window, over several windows, and continued in the middle of a chunk.
REQUESTS = [
    ScoreRequest(text=b"a"),
    ScoreRequest(text=b"windows of 16 bytes, and chunks of four", outputs=frozenset({"bytes"})),
    ScoreRequest(context=b"a context longer than a window", continuations=(b" and", b"!" * 20)),
]
KINDS = {"none": torch.nn.Linear, "int8": Int8Linear, "nf4": Linear4bit, "fp8": Fp8Linear}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", KINDS)
def test_joined_products_give_the_bits_of_separate_ones(mode, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "is_bfloat16_slow", lambda: False)  # as on a GPU
    config = EvaByteConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=16,
        chunk_size=4,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    EvaByteForCausalLM(config).save_pretrained(tmp_path)
    scorer = Scorer.load(str(tmp_path), dtype=dtype, quantization=mode, pass_bytes=200)
    separate, num_parameters = scorer.score(REQUESTS), scorer._model.num_parameters()

    fuse_products(scorer._model)

    layer = scorer._model.model.layers[1]
    assert isinstance(layer.self_attn.qkv_proj, KINDS[mode])
    assert isinstance(layer.mlp.gate_up_proj, KINDS[mode])
    assert not hasattr(layer.self_attn, "q_proj")
    assert scorer.score(REQUESTS) == separate
    assert scorer._model.num_parameters() == num_parameters


def test_nf4_blocks_across_two_weights_stay_apart():
    """A block has 64 values: one of 24 x 44 ends in the middle of a block."""
    layers = [Linear4bit(44, 24, bias=False, quant_type="nf4").to("cpu") for _ in range(2)]
    assert layers[0].weight.quant_state.blocksize == 64
    assert fused_layer(layers) is None
