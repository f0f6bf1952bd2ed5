import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.ops.eva_attention.blocked import eva_attention, plan_attention
from model.ops.eva_attention.reference import eva_attention as reference
from model.packing import ContextRows, lay_out

HEADS, HEAD_DIM, CPU = 3, 8, torch.device("cpu")
WINDOW, CHUNK = 16, 4


# In products over blocks of queries, and by PyTorch's fused attention as on a GPU without Triton.
FORMS = pytest.mark.parametrize("fused_dtype", [None, torch.float32], ids=["blocks", "fused"])


def random_inputs(layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(layout.num_tokens, HEADS, HEAD_DIM)] * 3 + [(layout.num_past, HEADS, HEAD_DIM)] * 2
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@FORMS
@pytest.mark.parametrize(
    "lengths",
    [[], [1], [0, 1, 0], [15], [16], [17], [31, 32, 33], [1] * 50, [5, 48, 1, 97, 16, 2, 47]],
    ids=str,
)
def test_blocked_products_give_what_the_reference_defines(lengths, fused_dtype):
    layout = lay_out(lengths, window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=2e-6
    )


@FORMS
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
def test_branches_of_a_context_share_its_rows(context_lengths, context_of, lengths, fused_dtype):
    contexts = ContextRows.of(np.array(context_lengths), window_size=WINDOW, chunk_size=CHUNK)
    layout = lay_out(
        lengths,
        window_size=WINDOW,
        chunk_size=CHUNK,
        contexts=contexts.by_sequence(np.array(context_of)),
    )
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
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


@FORMS
@pytest.mark.parametrize("length", [127, 128, 129, 256, 257, 600])
def test_windows_longer_than_a_block_of_queries_give_the_same(length, fused_dtype):
    layout = lay_out([length, 300], window_size=256, chunk_size=16)
    inputs = random_inputs(layout)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=2e-6
    )


@FORMS
def test_bfloat16_differs_by_its_rounding_only(fused_dtype):
    layout = lay_out([5, 48, 97], window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout, torch.bfloat16)

    plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
    torch.testing.assert_close(
        eva_attention(*inputs, plan), reference(*inputs, layout), rtol=0, atol=5e-2
    )


@FORMS
def test_nan_of_one_sequence_stays_in_it(fused_dtype):
    lengths = [20, 21, 22]
    layout = lay_out(lengths, window_size=WINDOW, chunk_size=CHUNK)
    inputs = random_inputs(layout)
    for tokens in inputs[:3]:
        tokens[20:41] = float("nan")
    for summaries in inputs[3:]:
        summaries[4:8] = float("nan")

    plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
    output = eva_attention(*inputs, plan)
    assert output[20:41].isnan().all()
    assert not output[:20].isnan().any()
    assert not output[41:].isnan().any()


def test_fused_attention_takes_few_operations():
    """A launch costs microseconds of the host: of 20,000 bytes each window is one operation."""
    layout = lay_out([20_000], window_size=2048, chunk_size=16)
    inputs = random_inputs(layout)
    num_operations = {}
    for fused_dtype in (None, torch.float32):
        plan = plan_attention(layout, num_heads=HEADS, device=CPU, fused_dtype=fused_dtype)
        with OperationCount() as count:
            eva_attention(*inputs, plan)
        num_operations[fused_dtype] = count.number
    assert num_operations[torch.float32] < 20 + 12 * len(plan.groups) < num_operations[None] / 8


class OperationCount(TorchDispatchMode):
    """Counts the operations that PyTorch dispatches."""

    number = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.number += 1
        return operation(*args, **(kwargs or {}))


def test_gradients_are_those_of_the_reference():
    layout = lay_out([40, 7], window_size=WINDOW, chunk_size=CHUNK)
    ours = [tensor.requires_grad_() for tensor in random_inputs(layout)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]

    plan = plan_attention(layout, num_heads=HEADS, device=CPU)
    eva_attention(*ours, plan).square().sum().backward()
    reference(*theirs, layout).square().sum().backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=0, atol=1e-5)
