"""The kernels that read each number once: normalisation, rotation, gate."""

from functools import partial

import pytest
import torch
import triton

from model.ops.backend import has_fp8_products
from model.ops.fp8_linear import kernel as fp8_linear
from model.ops.int8_linear import kernel as int8_linear
from model.ops.rms_norm import kernel as rms_norm
from model.ops.rms_norm import reference as rms_norm_reference
from model.ops.rotary import kernel as rotary
from model.ops.rotary import reference as rotary_reference
from model.ops.swiglu import kernel as swiglu
from model.ops.swiglu import reference as swiglu_reference

IS_INTERPRETED = triton.knobs.runtime.interpret
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# The modules that quantize rows alone, and the type of their rows.
QUANTIZERS = {int8_linear: torch.int8, fp8_linear: torch.float8_e4m3fn}
if not IS_INTERPRETED and torch.cuda.is_available() and not has_fp8_products(torch.device("cuda")):
    del QUANTIZERS[fp8_linear]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "channels"), [(3, 512), (2, 600), (1, 1), (2, 4097), (0, 64)]
)
@pytest.mark.parametrize("add_unit_offset", [True, False], ids=["offset", "plain"])
def test_branch_is_added_and_the_sum_normalised(
    num_tokens, channels, add_unit_offset, dtype, randn, assert_close
):
    x, branch = randn(num_tokens, channels, dtype=dtype), randn(num_tokens, channels, dtype=dtype)
    weight = randn(channels, dtype=dtype)
    options = {"eps": 1e-5, "add_unit_offset": add_unit_offset}
    total, normalised = rms_norm.add_rms_norm(x, branch, weight, **options)
    expected_total, expected = rms_norm_reference.add_rms_norm(
        x.cpu(), branch.cpu(), weight.cpu(), **options
    )
    assert_close(total, expected_total)
    assert_close(normalised, expected)


def test_without_a_branch_the_sum_is_the_stream_itself(randn, assert_close):
    x, weight = randn(3, 100), randn(100)
    total, normalised = rms_norm.add_rms_norm(x, None, weight, eps=1e-5, add_unit_offset=True)
    assert total is x
    _, expected = rms_norm_reference.add_rms_norm(
        x.cpu(), None, weight.cpu(), eps=1e-5, add_unit_offset=True
    )
    assert_close(normalised, expected)


def test_sum_is_rounded_before_it_is_normalised(randn):
    x, branch = (randn(4, 512, dtype=torch.float16) for _ in range(2))
    weight = torch.zeros(512, dtype=torch.float16, device=x.device)
    options = {"eps": 1e-5, "add_unit_offset": True}
    _, ours = rms_norm.add_rms_norm(x, branch, weight, **options)
    _, expected = rms_norm_reference.add_rms_norm(x.cpu(), branch.cpu(), weight.cpu(), **options)
    # Sums in another order round a few numbers of a thousand to the other side.
    assert (ours.cpu() != expected).float().mean() < 0.01


@pytest.mark.parametrize(
    "form",
    [rms_norm.add_rms_norm, partial(rms_norm.add_rms_norm_quantized, values_dtype=torch.int8)],
    ids=["plain", "quantized"],
)
def test_row_beyond_the_registers_is_refused(form, randn):
    x, weight = randn(1, 16385), randn(16385)
    with pytest.raises(ValueError, match="rows have 16,385 numbers; the limit is 16,384"):
        form(x, None, weight, eps=1e-5, add_unit_offset=True)


def assert_same_rows(ours, expected):
    assert ours.values.dtype == expected.values.dtype
    torch.testing.assert_close(ours.values.float(), expected.values.float(), rtol=0, atol=0)
    torch.testing.assert_close(ours.scales, expected.scales, rtol=0, atol=0)
    assert ours.dtype == expected.dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_branch", [True, False], ids=["branch", "no_branch"])
@pytest.mark.parametrize(("num_tokens", "channels"), [(3, 512), (4, 600), (1, 1), (0, 64)])
@pytest.mark.parametrize("op", QUANTIZERS, ids=lambda op: op.__name__.split(".")[-2])
def test_norm_that_quantizes_gives_what_two_kernels_give(
    op, num_tokens, channels, has_branch, dtype, randn
):
    x, weight = randn(num_tokens, channels, dtype=dtype), randn(channels, dtype=dtype)
    branch = randn(num_tokens, channels, dtype=dtype) if has_branch else None
    options = {"eps": 1e-5, "add_unit_offset": True}
    total, rows = rms_norm.add_rms_norm_quantized(
        x, branch, weight, **options, values_dtype=QUANTIZERS[op]
    )
    expected_total, normalised = rms_norm.add_rms_norm(x, branch, weight, **options)
    torch.testing.assert_close(total, expected_total, rtol=0, atol=0)
    expected = op.quantize_rows(normalised)
    if IS_INTERPRETED:
        assert_same_rows(rows, expected)
    # A GPU may add the squares in another order: the last bit of a number may differ.
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(rows.scales, expected.scales, rtol=2 * step, atol=0)
    # The next e4m3 is up to an eighth away.
    nearness = {"rtol": 0, "atol": 1} if op is int8_linear else {"rtol": 1 / 7, "atol": 2**-9}
    torch.testing.assert_close(rows.values.float(), expected.values.float(), **nearness)


@pytest.mark.parametrize("dtype", QUANTIZERS.values(), ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_quantized_row_that_is_not_finite_has_no_finite_scale(value, dtype, randn):
    x, up = randn(3, 64), randn(3, 64)
    x[1, 5] = value
    _, rows = rms_norm.add_rms_norm_quantized(
        x, None, randn(64), eps=1e-5, add_unit_offset=True, values_dtype=dtype
    )
    for scales in (rows.scales, swiglu.swiglu_quantized(x, up, values_dtype=dtype).scales):
        assert scales.isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "heads", "channels"),
    [(3, 2, 128), (2, 33, 128), (2, 3, 6), (1, 1, 2), (0, 2, 8)],
)
def test_keys_are_rotated_in_place(num_tokens, heads, channels, dtype, randn, assert_close):
    k = randn(num_tokens, heads, channels, dtype=dtype)
    positions = torch.arange(1, num_tokens + 1) * 777  # at 0 nothing turns
    frequencies = rotary_reference.rotary_frequencies(head_dim=channels, theta=1e5)
    tables = rotary_reference.rotary_tables(positions, frequencies)
    expected = rotary_reference.rotate(k.cpu(), *tables)
    assert rotary.rotate_in_place(k, *(table.to(k.device) for table in tables)) is k
    assert_close(k, expected)


def test_part_of_a_product_is_rotated_and_the_rest_of_it_stays(randn):
    product = randn(5, 3 * 2 * 8)
    before = product.clone()
    q, k, v = (part.unflatten(1, (2, 8)) for part in product.chunk(3, dim=1))
    tables = [randn(5, 4), randn(5, 4)]
    expected = rotary.rotate_in_place(k.contiguous(), *tables)
    rotary.rotate_in_place(k, *tables)
    torch.testing.assert_close(k, expected, rtol=0, atol=0)
    torch.testing.assert_close(q.flatten(1), before[:, :16], rtol=0, atol=0)
    torch.testing.assert_close(v.flatten(1), before[:, 32:], rtol=0, atol=0)


def test_rotation_leaves_its_neighbours_in_memory_alone(randn):
    row = randn(3, 2, 16)
    before = row.clone()
    rotary.rotate_in_place(row[1:2], randn(1, 8), randn(1, 8))
    torch.testing.assert_close(row[[0, 2]], before[[0, 2]], rtol=0, atol=0)


def test_tables_for_other_heads_are_refused(randn):
    with pytest.raises(ValueError, match="heads have 16 channels, but there are 7 angles"):
        rotary.rotate_in_place(randn(3, 2, 16), randn(3, 7), randn(3, 7))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_tokens", "channels"), [(3, 1376), (1, 1), (7, 147), (0, 64)])
def test_gate(num_tokens, channels, dtype, randn, assert_close):
    gate, up = (randn(num_tokens, channels, dtype=dtype) for _ in range(2))
    assert_close(swiglu.swiglu(gate, up), swiglu_reference.swiglu(gate.cpu(), up.cpu()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_tokens", "channels"), [(3, 1376), (1, 1), (7, 147), (0, 64)])
@pytest.mark.parametrize("op", QUANTIZERS, ids=lambda op: op.__name__.split(".")[-2])
def test_gate_that_quantizes_has_the_bits_of_both_kernels(op, num_tokens, channels, dtype, randn):
    gate, up = randn(num_tokens, 2 * channels, dtype=dtype).chunk(2, dim=1)
    expected = swiglu.swiglu(gate.contiguous(), up.contiguous())
    torch.testing.assert_close(swiglu.swiglu(gate, up), expected, rtol=0, atol=0)
    rows = swiglu.swiglu_quantized(gate, up, values_dtype=QUANTIZERS[op])
    assert_same_rows(rows, op.quantize_rows(expected))


def test_overlapping_rows_are_refused(randn):
    rows = randn(1, 64).expand(3, 64)
    with pytest.raises(ValueError, match="gate has strides"):
        swiglu.swiglu(rows, rows)


def test_far_gates_are_closed_or_open(randn):
    gate = torch.tensor([[-1e4, 1e4, 0.0]], device=randn(1).device)
    up = torch.ones_like(gate)
    assert swiglu.swiglu(gate, up).tolist() == [[0.0, 1e4, 0.0]]
