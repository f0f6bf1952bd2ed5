"""Computes attention of packed windows with one Triton kernel.

For query i of a segment with P rows of the past (summaries, or the KV cache of a context), without
copying keys or values:

    out_i = softmax([q_i . K_1..P ; q_i . k_0..i] / sqrt(D)) @ [V_1..P ; v_0..i]

One program computes a block of queries of one head. It reads tiles of summaries and then of
tokens, and keeps the running maximum and sum of the softmax (Milakov and Gimelshein 2018,
arXiv:1805.02867, algorithm 3) as FlashAttention does (Dao et al. 2022, arXiv:2205.14135,
algorithm 1). `reference.py` is the definition.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.eva_attention.kernel_plan import KernelPlan, queries_per_block
from model.ops.launching import FLOATS, INDICES, check_arguments, dot_type

LOG2_E = math.log2(math.e)


# For wider heads, a tile of keys and one of values leave no room for the queries.
MAX_HEAD_DIM = 512


def launch_config(head_dim: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return tile, warps and stages that spill no register and fit the shared memory of an L4.

    Raises:
        ValueError: no tile of heads this wide fits.
    """
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(
            f"eva_attention: heads have {head_dim:,} channels; the limit is {MAX_HEAD_DIM}, "
            "use the torch backend"
        )
    block_d = max(triton.next_power_of_2(head_dim), 16)
    is_wide, is_widest, is_float32 = block_d > 128, block_d > 256, dtype == torch.float32
    return {
        "BLOCK_Q": min(queries_per_block(dtype), 32 if is_widest else 64),
        "BLOCK_K": 16 if is_widest and is_float32 else 32,
        "BLOCK_D": block_d,
        # Three products of 10 bits each keep the digits of float32 on tensor cores, if there
        # are registers for it. Other types ignore this value.
        "FLOAT32_DOTS": "ieee" if is_wide else "tf32x3",
        "num_warps": 8 if is_wide or is_float32 else 4,
        "num_stages": 1 if is_widest else 2,
    }


def eva_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_summaries: Tensor,
    value_summaries: Tensor,
    plan: KernelPlan,
) -> Tensor:
    """Compute what `reference.eva_attention` defines, for the layout that `plan` was made from.

    q, k, v: [T, H, D]; key_summaries, value_summaries: [C, H, D]; all of one type and contiguous.
    Scores and sums are float32; the softmax's weights are rounded to the type of `q`.

    Raises:
        ValueError: a tensor does not fit the kernel or the plan, or heads are too wide.
    """
    sizes = check_arguments(
        "eva_attention",
        ("q", q, "T H D", FLOATS),
        ("k", k, "T H D", (q.dtype,)),
        ("v", v, "T H D", (q.dtype,)),
        ("key_summaries", key_summaries, "C H D", (q.dtype,)),
        ("value_summaries", value_summaries, "C H D", (q.dtype,)),
        ("plan.blocks", plan.blocks, "N 5", INDICES),
    )
    if (sizes["T"], q.dtype) != (plan.num_tokens, plan.dtype) or sizes["C"] < plan.num_summaries:
        raise ValueError(
            f"eva_attention: {sizes['T']} tokens of {q.dtype} and {sizes['C']} summaries, but the "
            f"plan is for {plan.num_tokens} of {plan.dtype} and {plan.num_summaries}"
        )
    out = torch.empty_like(q)
    if len(plan.blocks) == 0:
        return out
    num_heads, head_dim = q.shape[1:]
    config = launch_config(head_dim, q.dtype)
    parts_of_block = queries_per_block(q.dtype) // config["BLOCK_Q"]
    eva_attention_fwd_kernel[(len(plan.blocks), num_heads, parts_of_block)](
        q,
        k,
        v,
        key_summaries,
        value_summaries,
        out,
        plan.blocks,
        head_dim**-0.5 * LOG2_E,
        H=num_heads,
        D=head_dim,
        DOT_TYPE=dot_type(q.dtype),
        **config,
    )
    return out


@triton.jit
def eva_attention_fwd_kernel(
    q_ptr,  # [T, H, D], as k, v and out
    k_ptr,
    v_ptr,
    key_summaries_ptr,  # [C, H, D], as value_summaries
    value_summaries_ptr,
    out_ptr,
    blocks_ptr,  # [blocks, 5] int64, see KernelPlan
    scale_log2e,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    FLOAT32_DOTS: tl.constexpr,
):
    """Attend from part of a block of queries of one segment and head; grid: (blocks, H, parts)."""
    block_ptr = blocks_ptr + tl.program_id(0).to(tl.int64) * 5
    segment_start = tl.load(block_ptr)
    segment_length = tl.load(block_ptr + 1).to(tl.int32)
    first_query = tl.load(block_ptr + 2).to(tl.int32) + tl.program_id(2) * BLOCK_Q
    summary_start = tl.load(block_ptr + 3)
    num_summaries = tl.load(block_ptr + 4).to(tl.int32)
    head_offset = tl.program_id(1).to(tl.int64) * D

    rows = tl.arange(0, BLOCK_Q)
    columns = tl.arange(0, BLOCK_K)
    channels = tl.arange(0, BLOCK_D)
    queries = first_query + rows
    # Addresses need 64 bits up to the first row of a tile, and 32 bits within it.
    query_tile = rows[:, None] * (H * D) + channels[None, :]
    key_tile = columns[:, None] * (H * D) + channels[None, :]
    query_offset = (segment_start + first_query) * (H * D) + head_offset
    query_mask = (queries[:, None] < segment_length) & (channels[None, :] < D)
    q = tl.load(q_ptr + query_offset + query_tile, mask=query_mask, other=0.0).to(DOT_TYPE)

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    for first in range(0, num_summaries, BLOCK_K):
        offset = (summary_start + first) * (H * D) + head_offset
        is_summary = first + columns < num_summaries
        mask = is_summary[:, None] & (channels[None, :] < D)
        k = tl.load(key_summaries_ptr + offset + key_tile, mask=mask, other=0.0)
        v = tl.load(value_summaries_ptr + offset + key_tile, mask=mask, other=0.0)
        peak, total, acc = _attend_tile(
            q,
            k.to(DOT_TYPE),
            v.to(DOT_TYPE),
            is_summary[None, :],
            scale_log2e,
            peak,
            total,
            acc,
            FLOAT32_DOTS,
        )

    for first in range(0, tl.minimum(first_query + BLOCK_Q, segment_length), BLOCK_K):
        offset = (segment_start + first) * (H * D) + head_offset
        keys = first + columns
        mask = (keys[:, None] < segment_length) & (channels[None, :] < D)
        k = tl.load(k_ptr + offset + key_tile, mask=mask, other=0.0)
        v = tl.load(v_ptr + offset + key_tile, mask=mask, other=0.0)
        # Rows after the segment see zeros, never keys of others, and are not stored.
        is_visible = keys[None, :] <= queries[:, None]
        peak, total, acc = _attend_tile(
            q,
            k.to(DOT_TYPE),
            v.to(DOT_TYPE),
            is_visible,
            scale_log2e,
            peak,
            total,
            acc,
            FLOAT32_DOTS,
        )

    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + query_offset + query_tile, out, mask=query_mask)


@triton.jit
def _attend_tile(q, k, v, is_visible, scale_log2e, peak, total, acc, FLOAT32_DOTS: tl.constexpr):
    """Add one tile of keys to the running softmax; after the first, every row has seen a key."""
    scores = tl.dot(q, tl.trans(k), input_precision=FLOAT32_DOTS) * scale_log2e
    scores = tl.where(is_visible, scores, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    weights = tl.exp2(scores - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, axis=1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=FLOAT32_DOTS)
    return new_peak, total, acc
