"""The float product: near the reference, and the same bits whatever shares the pass."""

import pytest
import torch
import triton

from model import EvaByteConfig, EvaByteForCausalLM
from model.evabyte.linear_layers import InvariantLinear, make_products_invariant
from model.ops.float_linear import float_linear, reference
from model.ops.tiled_product.kernel import GROUP_SIZE
from model.weights.fused_products import fuse_products

IS_INTERPRETED = triton.knobs.runtime.interpret
TYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = [(1, 64, 64), (17, 100, 65), (130, 129, 7), (3, 1, 1), (0, 64, 64)]
# Rows, inputs and outputs. The interpreter is slow: it computes few rows and outputs.
WIDE = [(8200, 4096, 12_288), (3000, 11_008, 4096)]
if IS_INTERPRETED:
    WIDE = [(70, 4096, 5)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("num_rows", "num_in", "num_out"), SIZES)
def test_kernel_gives_what_the_reference_does(
    num_rows, num_in, num_out, dtype, randn, assert_close
):
    x = randn(num_rows, num_in, dtype=dtype)
    weight = randn(num_out, num_in, dtype=dtype, scale=num_in**-0.5)
    assert_close(float_linear(x, weight), reference.float_linear(x.cpu(), weight.cpu()))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("num_rows", "num_in", "num_out"), WIDE, ids=str)
def test_products_as_wide_as_those_of_the_published_model(
    num_rows, num_in, num_out, dtype, randn, assert_close, compared_rows
):
    x = randn(num_rows, num_in, dtype=dtype)
    weight = randn(num_out, num_in, dtype=dtype, scale=num_in**-0.5)
    ours, compared = float_linear(x, weight).cpu(), compared_rows(num_rows)
    assert ours.isfinite().all()
    assert_close(ours[compared], reference.float_linear(x.cpu()[compared], weight.cpu()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_row_has_the_same_bits_alone_and_at_any_place(dtype, randn):
    num_rows = 128 * (GROUP_SIZE.value + 1) + 9  # two groups of blocks
    x, weight = randn(num_rows, 200, dtype=dtype), randn(70, 200, dtype=dtype)
    together = float_linear(x, weight)
    for first, last in [(0, 1), (5, 6), (130, 147), (1150, 1161), (63, 200)]:
        some = float_linear(x[first:last].contiguous(), weight)
        torch.testing.assert_close(together[first:last], some, rtol=0, atol=0)


@torch.inference_mode()
def test_text_has_the_same_bits_in_any_company(device):
    config = EvaByteConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        window_size=16,
        chunk_size=4,
    )
    torch.manual_seed(0)
    model = EvaByteForCausalLM(config).to(device).eval()
    model.model.backend = "triton"
    fuse_products(model)
    make_products_invariant(model.model.layers)
    layers = [layer for layer in model.modules() if isinstance(layer, InvariantLinear)]
    assert len(layers) == 4

    ids = torch.arange(160, device=device) % 256 + 64
    together = model.model(ids, model.lay_out([30, 40, 90]))
    for start, length in [(0, 30), (30, 40), (70, 90)]:
        alone = model.model(ids[start : start + length], model.lay_out([length]))
        torch.testing.assert_close(together[start : start + length], alone, rtol=0, atol=0)


def test_weights_of_four_bits_are_unpacked(randn, device, assert_close):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(64, 96, bias=False, quant_type="nf4").to(device)
    x = randn(5, 64)
    unpack = bitsandbytes.functional.dequantize_4bit
    weight = unpack(layer.weight.data, layer.weight.quant_state)
    expected = reference.float_linear(x.cpu(), weight.float().cpu())
    assert_close(InvariantLinear(layer)(x), expected)


def test_types_that_differ_are_refused(randn):
    with pytest.raises(ValueError, match=r"weight has type torch\.float32"):
        float_linear(randn(2, 8, dtype=torch.float16), randn(3, 8))
