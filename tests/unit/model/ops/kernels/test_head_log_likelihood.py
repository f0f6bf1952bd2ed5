"""The kernel of the next-byte head."""

import dataclasses

import pytest
import torch

from model.ops.head_log_likelihood import kernel, reference


def score_both_ways(num_rows, channels, num_ids, randn, *, dtype=torch.float32, **options):
    """What the kernel keeps of the distributions, and what the reference does."""
    hidden = randn(num_rows, channels, dtype=dtype)
    weight = randn(num_ids, channels, dtype=dtype, scale=2 * channels**-0.5)
    targets = torch.arange(num_rows, device=hidden.device) * 7919 % num_ids
    ours = kernel.head_log_likelihood(hidden, weight, targets, **options)
    expected = reference.head_log_likelihood(hidden.cpu(), weight.cpu(), targets.cpu(), **options)
    return ours, expected


@pytest.mark.parametrize(
    ("num_rows", "channels", "num_ids"),
    [(33, 96, 320), (1, 64, 320), (32, 17, 320), (5, 40, 3), (2, 16, 1000), (0, 32, 320)],
)
def test_kernel_gives_what_the_reference_does(num_rows, channels, num_ids, randn):
    ours, expected = score_both_ways(num_rows, channels, num_ids, randn, with_moments=True, top_k=3)
    for field in dataclasses.fields(expected):
        torch.testing.assert_close(
            getattr(ours, field.name).cpu(),
            getattr(expected, field.name),
            rtol=1e-5,
            atol=1e-5,
            msg=lambda message, name=field.name: f"{name}: {message}",
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_kernel_takes_two_byte_types(dtype, randn):
    ours, expected = score_both_ways(33, 64, 320, randn, dtype=dtype, with_moments=True, top_k=0)
    for name in ("log_prob", "entropy", "variance"):
        torch.testing.assert_close(
            getattr(ours, name).cpu(), getattr(expected, name), rtol=2e-2, atol=2e-2
        )


def test_all_ids_are_ordered_where_all_are_asked_for(randn):
    ours, expected = score_both_ways(3, 32, 20, randn, with_moments=False, top_k=20)
    assert ours.top_ids.tolist() == expected.top_ids.tolist()
    assert ours.entropy is None
    assert ours.variance is None


def test_equal_ids_have_one_rank_and_come_in_their_order(device):
    hidden, weight = torch.ones(1, 16, device=device), torch.ones(320, 16, device=device)
    weight[[5, 7]] = 2.0
    targets = torch.tensor([7], device=device)
    scores = kernel.head_log_likelihood(hidden, weight, targets, with_moments=False, top_k=4)
    assert scores.rank.tolist() == [1]
    assert scores.top_ids.tolist() == [[5, 7, 0, 1]]


def test_certainty_has_no_entropy(device):
    hidden, weight = torch.ones(1, 16, device=device), torch.zeros(320, 16, device=device)
    weight[3] = 100.0
    targets = torch.tensor([3], device=device)
    scores = kernel.head_log_likelihood(hidden, weight, targets, with_moments=True, top_k=0)
    assert (scores.log_prob.item(), scores.entropy.item(), scores.variance.item()) == (0, 0, 0)


def test_broken_weights_show(randn):
    hidden, weight = randn(2, 16), randn(320, 16)
    weight[4, 4] = float("nan")
    targets = torch.tensor([1, 2], device=hidden.device)
    scores = kernel.head_log_likelihood(hidden, weight, targets, with_moments=False, top_k=0)
    assert scores.log_prob.isnan().all()


@pytest.mark.parametrize(
    ("num_ids", "top_k", "message"),
    [(1025, 0, "1,025 ids do not fit"), (320, 321, "top_k is 321; the limit is the 320 ids")],
)
def test_more_than_the_kernel_holds_is_refused(num_ids, top_k, message, randn):
    hidden, weight = randn(1, 16), randn(num_ids, 16)
    targets = torch.zeros(1, dtype=torch.int64, device=hidden.device)
    with pytest.raises(ValueError, match=message):
        kernel.head_log_likelihood(hidden, weight, targets, with_moments=False, top_k=top_k)
