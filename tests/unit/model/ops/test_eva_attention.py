import numpy as np
import pytest
import torch

from model.ops.eva_attention.blocked import eva_attention, plan_attention
from model.ops.eva_attention.reference import eva_attention as reference
from model.packing import ContextRows, lay_out

HEADS, HEAD_DIM, CPU = 3, 8, torch.device("cpu")
WINDOW, CHUNK = 16, 4


def random_inputs(layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(layout.num_tokens, HEADS, HEAD_DIM)] * 3 + [(layout.num_past, HEADS, HEAD_DIM)] * 2
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize(
    "lengths",
    [[], [1], [0, 1, 0], [15], [16], [17], [31, 32, 33], [1] * 50, [5, 48, 1, 97, 16, 2, 47]],
    ids=str,
)
def test_blocked_products_give_what_the_reference_defines(lengths):
    layout = lay_out(lengths, window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("context_lengths", "context_of", "lengths"),
    [
        ([5], [0], [3]),
        ([21], [0] * 5, [1, 2, 0, 3, 40]),
        ([5, 37, 16], [0, 1, 2, 1, 2, 0, 1], [1, 2, 3, 4, 20, 17, 0]),
        ([30], [0] * 900, [1] * 900),
        ([200], [0] * 40, [16, 15] * 20),
    ],
    ids=["one", "one-context", "three-contexts", "many-short", "beyond-one-product"],
)
def test_branches_of_a_context_share_its_rows(context_lengths, context_of, lengths):
    contexts = ContextRows.of(np.array(context_lengths), window_size=WINDOW, chunk_size=CHUNK)
    layout = lay_out(
        lengths,
        window_size=WINDOW,
        chunk_size=CHUNK,
        contexts=contexts.by_sequence(np.array(context_of)),
    )
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=2e-6
    )


def test_rows_of_a_shared_past_are_read_once_per_product():
    contexts = ContextRows.of(np.array([30]), window_size=WINDOW, chunk_size=CHUNK)
    layout = lay_out(
        [1] * 900,
        window_size=WINDOW,
        chunk_size=CHUNK,
        contexts=contexts.by_sequence(np.zeros(900, dtype=np.int64)),
    )

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)

    # 4 summaries and 14 tokens for each of two products, and the branches' own tokens.
    assert len(plan.key_rows) == HEADS * (2 * 18 + 900)


@pytest.mark.parametrize("length", [127, 128, 129, 256, 257, 600])
def test_windows_longer_than_a_block_of_queries_give_the_same(length):
    layout = lay_out([length, 300], window_size=256, chunk_size=16)
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=2e-6
    )


def test_bfloat16_differs_by_its_rounding_only():
    layout = lay_out([5, 48, 97], window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout, torch.bfloat16)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=5e-2
    )


def test_nan_of_one_sequence_stays_in_it():
    lengths = [20, 21, 22]
    layout = lay_out(lengths, window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout)
    for tokens in inputs[:3]:
        tokens[20:41] = float("nan")
    for summaries in inputs[3:]:
        summaries[4:8] = float("nan")

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    output = eva_attention(*inputs, plan)
    assert output[20:41].isnan().all()
    assert not output[:20].isnan().any()
    assert not output[41:].isnan().any()


def test_gradients_are_those_of_the_reference():
    layout = lay_out([40, 7], window_size=WINDOW, chunk_size=CHUNK)
    ours = [tensor.requires_grad_() for tensor in random_inputs(layout)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    eva_attention(*ours, plan).square().sum().backward()
    reference(*theirs, layout).square().sum().backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=0, atol=1e-5)
