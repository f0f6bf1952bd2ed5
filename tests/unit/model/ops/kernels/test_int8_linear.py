"""The int8 kernels: the same bits as the reference, whatever the blocks and the batch mates."""

import pytest
import torch

from model.ops.int8_linear import kernel, reference


def quantized_weight(num_out, num_in, device):
    """A weight as bitsandbytes stores it."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-127, 128, (num_out, num_in), generator=generator, dtype=torch.int8)
    return weight.to(device), torch.rand(num_out, generator=generator).to(device) + 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("num_rows", "num_in", "num_out"),
    [(1, 64, 64), (17, 100, 65), (65, 129, 7), (130, 64, 130), (3, 1, 1), (0, 64, 64)],
)
def test_kernel_gives_the_bits_of_the_reference(num_rows, num_in, num_out, dtype, randn):
    x = randn(num_rows, num_in, dtype=dtype)
    weight, absmax = quantized_weight(num_out, num_in, x.device)
    expected = reference.int8_linear(x.cpu(), weight.cpu(), absmax.cpu())
    ours = kernel.int8_linear(x, weight, absmax)
    torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=0)


def test_leading_axes_are_kept(randn):
    weight, absmax = quantized_weight(5, 16, randn(1).device)
    assert kernel.int8_linear(randn(2, 3, 16), weight, absmax).shape == (2, 3, 5)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30], ids=["zero", "tiny", "huge"])
def test_rows_of_any_size_are_quantized_as_the_reference_does(factor, randn):
    x = randn(2, 100) * factor
    ours, expected = kernel.quantize_rows(x), reference.quantize_rows(x.cpu())
    for tensor, reference_tensor in zip(ours, expected, strict=True):
        torch.testing.assert_close(tensor.cpu(), reference_tensor, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_numbers_halfway_between_two_int8_are_rounded_as_the_reference_does(dtype, device):
    largest = torch.arange(2, 256, 2)[:, None]
    whole_numbers = torch.arange(256).minimum(largest).to(dtype)
    ours = kernel.quantize_rows(whole_numbers.to(device))
    for tensor, reference_tensor in zip(ours, reference.quantize_rows(whole_numbers), strict=True):
        torch.testing.assert_close(tensor.cpu(), reference_tensor, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_row_that_is_not_finite_gives_no_finite_number(value, randn):
    x = randn(3, 64)
    x[1, 5] = value
    weight, absmax = quantized_weight(4, 64, x.device)
    y = kernel.int8_linear(x, weight, absmax)
    assert not y[1].isfinite().any()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.float(), "weight has type torch.float32"),
        (lambda w: w[:, :-1].contiguous(), "weight has shape"),
        (lambda w: w.t().contiguous().t(), "weight has strides"),
    ],
    ids=["type", "inputs", "strides"],
)
def test_wrong_weight_is_named(change, message, randn):
    x = randn(2, 64)
    weight, absmax = quantized_weight(8, 64, x.device)
    with pytest.raises(ValueError, match=message):
        kernel.int8_linear(x, change(weight), absmax)
