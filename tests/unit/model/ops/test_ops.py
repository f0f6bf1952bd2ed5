"""Each operation against a definition written a second time, in float64 and one by one."""

import math

import pytest
import torch

from model.ops.chunk_summaries.reference import chunk_summaries
from model.ops.head_log_likelihood.reference import head_log_likelihood
from model.ops.rms_norm import add_rms_norm
from model.ops.rms_norm import reference as rms_norm_reference
from model.ops.rms_norm.reference import rms_norm
from model.ops.rotary import rotate_keys
from model.ops.rotary.reference import rotary_frequencies, rotary_tables, rotate
from model.ops.swiglu import swiglu as gated
from model.ops.swiglu.reference import swiglu


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("add_unit_offset", [False, True])
def test_rms_norm_divides_by_the_root_of_the_mean_square(add_unit_offset):
    x, weight = randn(5, 8), randn(8, seed=1)

    normed = rms_norm(x, weight, eps=1e-5, add_unit_offset=add_unit_offset)

    for row, expected_row in zip(x.double(), normed, strict=True):
        root = math.sqrt(sum(value**2 for value in row.tolist()) / 8 + 1e-5)
        expected = row / root * (weight.double() + add_unit_offset)
        torch.testing.assert_close(expected_row.double(), expected, rtol=0, atol=1e-6)


def test_rms_norm_of_bfloat16_rounds_once():
    x, weight = randn(5, 8).bfloat16(), randn(8, seed=1).bfloat16()

    normed = rms_norm(x, weight, eps=1e-5, add_unit_offset=True)

    exact = rms_norm(x.float(), weight.float(), eps=1e-5, add_unit_offset=True)
    assert torch.equal(normed, exact.bfloat16())


def test_rotation_turns_pairs_half_a_head_apart():
    x = randn(3, 2, 4)

    frequencies = rotary_frequencies(head_dim=4, theta=100.0)
    rotated = rotate(x, *rotary_tables(torch.tensor([0, 1, 700]), frequencies))

    for token, position in enumerate([0, 1, 700]):
        for head in range(2):
            for pair, frequency in enumerate([1.0, 0.1]):
                a, b = x[token, head, pair].item(), x[token, head, pair + 2].item()
                turned = complex(a, b) * complex(
                    math.cos(position * frequency), math.sin(position * frequency)
                )
                assert rotated[token, head, pair].item() == pytest.approx(turned.real, abs=1e-4)
                assert rotated[token, head, pair + 2].item() == pytest.approx(turned.imag, abs=1e-4)


def test_swiglu_gates_with_silu():
    gate, up = randn(4), randn(4, seed=1)

    expected = [g / (1 + math.exp(-g)) * u for g, u in zip(gate.tolist(), up.tolist(), strict=True)]
    assert swiglu(gate, up).tolist() == pytest.approx(expected, abs=1e-6)


def test_summaries_weigh_the_keys_and_values_of_their_chunk():
    keys, values = randn(20, 2, 8), randn(20, 2, 8, seed=1)
    mu, phi = randn(2, 8, seed=2), randn(2, 8, seed=3)
    starts = torch.tensor([0, 4, 11])  # chunks of a second sequence need not be aligned

    key_summaries, value_summaries = chunk_summaries(
        keys, values, starts, chunk_size=4, mu=mu, phi=phi
    )

    for chunk, start in enumerate(starts.tolist()):
        for head in range(2):
            k = keys[start : start + 4, head].double()
            v = values[start : start + 4, head].double()
            a = (k @ mu[head].double()).softmax(0)
            b = ((k @ phi[head].double() - k.square().sum(1) / 2) / math.sqrt(8)).softmax(0)
            torch.testing.assert_close(
                key_summaries[chunk, head].double(), a @ k, rtol=0, atol=1e-5
            )
            torch.testing.assert_close(
                value_summaries[chunk, head].double(), b @ v, rtol=0, atol=1e-5
            )


def test_no_chunks_have_no_summaries():
    none = torch.empty(0, dtype=torch.int64)

    summaries = chunk_summaries(
        randn(3, 2, 8), randn(3, 2, 8), none, chunk_size=4, mu=randn(2, 8), phi=randn(2, 8)
    )

    assert [tuple(tensor.shape) for tensor in summaries] == [(0, 2, 8), (0, 2, 8)]


def test_head_scores_are_those_of_a_float64_softmax():
    hidden, weight = randn(7, 16), randn(320, 16, seed=1)
    targets = torch.tensor([0, 319, 64, 100, 5, 5, 200])

    scores = head_log_likelihood(hidden, weight, targets, with_moments=True, top_k=4)

    log_probs = (hidden.double() @ weight.double().T).log_softmax(-1)
    for row, target in enumerate(targets.tolist()):
        expected = log_probs[row].tolist()
        mean = sum(math.exp(lp) * lp for lp in expected)
        variance = sum(math.exp(lp) * lp**2 for lp in expected) - mean**2
        order = sorted(range(320), key=lambda i: -expected[i])
        assert scores.log_prob[row].item() == pytest.approx(expected[target], abs=1e-5)
        assert scores.rank[row].item() == order.index(target) + 1
        assert scores.entropy[row].item() == pytest.approx(-mean, abs=1e-5)
        assert scores.variance[row].item() == pytest.approx(variance, abs=1e-4)
        assert scores.top_ids[row].tolist() == order[:4]
        assert scores.top_log_probs[row].tolist() == pytest.approx(
            [expected[i] for i in order[:4]], abs=1e-5
        )


def test_equally_likely_ids_share_the_rank_and_stand_in_order():
    hidden, weight = torch.ones(1, 1), torch.zeros(320, 1)
    weight[7] = 1.0

    scores = head_log_likelihood(hidden, weight, torch.tensor([300]), with_moments=False, top_k=3)

    assert scores.rank.tolist() == [2]
    assert scores.top_ids.tolist() == [[7, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("add_unit_offset", [False, True], ids=["plain", "offset"])
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (5, 8), (7, 1376)], ids=str)
def test_norm_in_few_passes_is_that_of_the_definition(shape, add_unit_offset, dtype):
    x, branch = randn(*shape).to(dtype), randn(*shape, seed=1).to(dtype)
    weight = randn(shape[1], seed=2).to(dtype)
    options = {"eps": 1e-5, "add_unit_offset": add_unit_offset}
    for given in (branch, None):
        total, normed = add_rms_norm(x, given, weight, **options, backend="torch")
        expected_total, expected = rms_norm_reference.add_rms_norm(x, given, weight, **options)
        assert torch.equal(total, expected_total)
        # One rounding of the type: sums in another order round a few numbers to the other side.
        step = torch.finfo(dtype).eps
        torch.testing.assert_close(normed, expected, rtol=4e-6 + step, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(0, 2, 8), (1, 1, 2), (3, 2, 6), (5, 3, 64)], ids=str)
def test_rotation_in_few_passes_has_the_bits_of_the_definition(shape, dtype):
    k = randn(*shape).to(dtype)
    frequencies = rotary_frequencies(head_dim=shape[2], theta=1e5)
    tables = rotary_tables(torch.arange(shape[0]) * 777 + 1, frequencies)
    assert torch.equal(rotate_keys(k, *tables, backend="torch"), rotate(k, *tables))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gate_in_few_passes_has_the_bits_of_the_definition(dtype):
    gate, up = randn(3, 147).to(dtype), randn(3, 147, seed=1).to(dtype)
    assert torch.equal(gated(gate, up, backend="torch"), swiglu(gate, up))
