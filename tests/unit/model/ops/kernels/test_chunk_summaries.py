"""The chunk summaries kernel."""

import pytest
import torch

from model.ops.chunk_summaries import kernel, reference

# tokens, chunk starts, chunk, heads, channels of a head
CASES = {
    "published_shape": (64, [0, 16, 48], 16, 2, 128),
    "odd_chunk_and_head": (50, [0, 15, 35], 15, 3, 24),
    "chunk_of_one_token": (5, [0, 4], 1, 2, 80),
    "chunk_longer_than_a_tile": (401, [1], 400, 1, 96),
    "largest_head": (21, [2], 19, 1, 256),
    "smallest_head": (9, [3], 6, 2, 2),
    "no_chunk": (9, [], 6, 2, 16),
}


def summarise_both_ways(num_tokens, starts, chunk_size, heads, channels, dtype, randn, scale=1.0):
    """The kernel's key and value summaries, and the reference's."""
    keys, values = (randn(num_tokens, heads, channels, dtype=dtype, scale=scale) for _ in range(2))
    mu, phi = randn(heads, channels, dtype=dtype), randn(heads, channels, dtype=dtype)
    chunk_starts = torch.tensor(starts, dtype=torch.int64, device=keys.device)
    ours = kernel.chunk_summaries(keys, values, chunk_starts, chunk_size=chunk_size, mu=mu, phi=phi)
    keys, values, chunk_starts, mu, phi = (
        tensor.cpu() for tensor in (keys, values, chunk_starts, mu, phi)
    )
    return ours, reference.chunk_summaries(
        keys, values, chunk_starts, chunk_size=chunk_size, mu=mu, phi=phi
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_kernel_gives_what_the_reference_does(case, randn, assert_close):
    ours, expected = summarise_both_ways(*case, torch.float32, randn)
    for summaries, reference_summaries in zip(ours, expected, strict=True):
        assert_close(summaries, reference_summaries)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_kernel_takes_two_byte_types(dtype, randn, assert_close):
    ours, expected = summarise_both_ways(32, [0, 16], 16, 1, 64, dtype, randn)
    for summaries, reference_summaries in zip(ours, expected, strict=True):
        assert_close(summaries, reference_summaries)


def test_great_keys_do_not_overflow(randn):
    ours, expected = summarise_both_ways(16, [0], 16, 1, 64, torch.float32, randn, scale=50)
    torch.testing.assert_close([o.cpu() for o in ours], list(expected), rtol=1e-3, atol=1e-2)


def test_values_of_another_shape_are_refused(randn):
    keys, mu = randn(8, 2, 16), randn(2, 16)
    starts = torch.zeros(1, dtype=torch.int64, device=keys.device)
    with pytest.raises(ValueError, match="values has shape"):
        kernel.chunk_summaries(keys, keys[:7], starts, chunk_size=4, mu=mu, phi=mu)
