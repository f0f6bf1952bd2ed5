"""Computes attention of packed windows with one Triton kernel.

For query i of a segment with P rows of the past (summaries, or the KV cache of a context), without
copying keys or values:

    out_i = softmax([q_i . K_1..P ; q_i . k_0..i] / sqrt(D)) @ [V_1..P ; v_0..i]

One program computes a block of queries of one head. It reads tiles of summaries and then of
tokens, and keeps the running maximum and sum of the softmax (Milakov and Gimelshein 2018,
arXiv:1805.02867, algorithm 3) as FlashAttention does (Dao et al. 2022, arXiv:2205.14135,
algorithm 1). Tiles that every query of the block sees have no mask. `reference.py` is the
definition.

Queries are rotated when a program loads them (`load_rotated`): each is loaded once, and no kernel
reads and writes them for that alone. Keys are loaded by many programs, and come rotated.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.eva_attention.kernel_plan import KernelPlan, queries_per_block
from model.ops.launching import FLOATS, INDICES, check_arguments, dot_type, gpu_capability
from model.ops.rotary.kernel import check_angles, load_rotated, table_arguments

LOG2_E = math.log2(math.e)


# For wider heads, a tile of keys and one of values leave no room for the queries.
MAX_HEAD_DIM = 512


def launch_config(head_dim: int, dtype: torch.dtype, capability: int) -> dict[str, Any]:
    """Return tile, warps and stages that spill no register and fit the shared memory of an L4.

    Capability 9.0 computes 64 keys a step: its asynchronous products leave registers for them.
    Others spill then.

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
    num_warps = 8 if is_wide or is_float32 else 4
    return {
        "BLOCK_Q": min(queries_per_block(dtype), 32 if is_widest else 64),
        "BLOCK_K": 16 if is_widest else 64 if capability == 90 and num_warps == 4 else 32,
        "BLOCK_D": block_d,
        # Three products of 10 bits each keep the digits of float32 on tensor cores, if there
        # are registers for it. Other types ignore this value.
        "FLOAT32_DOTS": "ieee" if is_wide else "tf32x3",
        "num_warps": 16 if is_widest and is_float32 else num_warps,
        "num_stages": 1 if is_widest else 2,
    }


def eva_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_summaries: Tensor,
    value_summaries: Tensor,
    plan: KernelPlan,
    *,
    rotary: tuple[Tensor, Tensor],
) -> Tensor:
    """Compute what `reference.eva_attention` defines of rotated queries, for the layout of `plan`.

    q, k, v: [T, H, D], which may be parts of one product, q not rotated; key_summaries,
    value_summaries: [C, H, D], contiguous; all of one type. rotary: cosines and sines of
    `rotary_tables`, each [T, D / 2] float32. The result is contiguous. Scores and sums are float32;
    rotated queries and the softmax's weights are rounded to the type of `q`.

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
        *table_arguments(*rotary),
        rows_apart=("q", "k", "v"),
    )
    check_angles("eva_attention", sizes)
    if (sizes["T"], q.dtype) != (plan.num_tokens, plan.dtype) or sizes["C"] < plan.num_summaries:
        raise ValueError(
            f"eva_attention: {sizes['T']} tokens of {q.dtype} and {sizes['C']} summaries, but the "
            f"plan is for {plan.num_tokens} of {plan.dtype} and {plan.num_summaries}"
        )
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if len(plan.blocks) == 0:
        return out
    num_heads, head_dim = q.shape[1:]
    config = launch_config(head_dim, q.dtype, gpu_capability())
    parts_of_block = queries_per_block(q.dtype) // config["BLOCK_Q"]
    eva_attention_fwd_kernel[(len(plan.blocks), num_heads, parts_of_block)](
        q,
        k,
        v,
        key_summaries,
        value_summaries,
        *rotary,
        out,
        plan.blocks,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        head_dim**-0.5 * LOG2_E,
        H=num_heads,
        D=head_dim,
        DOT_TYPE=dot_type(q.dtype),
        **config,
    )
    return out


@triton.jit
def eva_attention_fwd_kernel(
    q_ptr,  # [T, H, D], q_stride from token to token; so are k and v with their strides
    k_ptr,
    v_ptr,
    key_summaries_ptr,  # [C, H, D], as value_summaries
    value_summaries_ptr,
    cos_ptr,  # [T, D / 2] float32, as sin
    sin_ptr,
    out_ptr,  # [T, H, D]
    blocks_ptr,  # [blocks, 5] int64, see KernelPlan
    q_stride,
    k_stride,
    v_stride,
    scale_log2e,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    FLOAT32_DOTS: tl.constexpr,
):
    """Attend from part of a block of queries of one segment and head; grid: (blocks, H, parts).

    Only the last tile of summaries and the tiles on the diagonal need a mask.
    """
    block_ptr = blocks_ptr + tl.program_id(0).to(tl.int64) * 5
    segment_start = tl.load(block_ptr)
    segment_length = tl.load(block_ptr + 1).to(tl.int32)
    first_query = tl.load(block_ptr + 2).to(tl.int32) + tl.program_id(2) * BLOCK_Q
    summary_start = tl.load(block_ptr + 3)
    num_summaries = tl.load(block_ptr + 4).to(tl.int32)
    head_offset = tl.program_id(1).to(tl.int64) * D

    rows = tl.arange(0, BLOCK_Q)
    channels = tl.arange(0, BLOCK_D)
    queries = first_query + rows
    # Addresses need 64 bits up to the first row of a tile, and 32 bits within it.
    first_row = segment_start + first_query
    is_query = queries < segment_length
    q = load_rotated(
        q_ptr + first_row * q_stride + head_offset,
        cos_ptr + first_row * (D // 2),
        sin_ptr + first_row * (D // 2),
        q_stride,
        rows,
        is_query,
        D,
        BLOCK_D,
    ).to(DOT_TYPE)

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    keys_ptr = key_summaries_ptr + summary_start * (H * D) + head_offset
    values_ptr = value_summaries_ptr + summary_start * (H * D) + head_offset
    whole = num_summaries // BLOCK_K * BLOCK_K
    for first in range(0, whole, BLOCK_K):
        k, v = _load_tile(
            keys_ptr, values_ptr, H * D, H * D, first, whole, D, BLOCK_K, BLOCK_D, False
        )
        peak, total, acc = _attend_tile(
            q, k, v, first, queries, scale_log2e, peak, total, acc, FLOAT32_DOTS, False
        )
    for first in range(whole, num_summaries, BLOCK_K):
        k, v = _load_tile(
            keys_ptr, values_ptr, H * D, H * D, first, num_summaries, D, BLOCK_K, BLOCK_D, True
        )
        # Every query sees all summaries.
        last_keys = tl.zeros([BLOCK_Q], tl.int32) + (num_summaries - 1)
        peak, total, acc = _attend_tile(
            q, k, v, first, last_keys, scale_log2e, peak, total, acc, FLOAT32_DOTS, True
        )

    keys_ptr = k_ptr + segment_start * k_stride + head_offset
    values_ptr = v_ptr + segment_start * v_stride + head_offset
    # A part of a block may begin behind the segment, where the tensors may end.
    diagonal = tl.minimum(first_query, segment_length) // BLOCK_K * BLOCK_K
    for first in range(0, diagonal, BLOCK_K):
        k, v = _load_tile(
            keys_ptr, values_ptr, k_stride, v_stride, first, diagonal, D, BLOCK_K, BLOCK_D, False
        )
        peak, total, acc = _attend_tile(
            q, k, v, first, queries, scale_log2e, peak, total, acc, FLOAT32_DOTS, False
        )
    end = tl.minimum(first_query + BLOCK_Q, segment_length)
    for first in range(diagonal, end, BLOCK_K):
        # Queries after the segment see zeros, never keys of others, and are not stored.
        k, v = _load_tile(
            keys_ptr,
            values_ptr,
            k_stride,
            v_stride,
            first,
            segment_length,
            D,
            BLOCK_K,
            BLOCK_D,
            True,
        )
        peak, total, acc = _attend_tile(
            q, k, v, first, queries, scale_log2e, peak, total, acc, FLOAT32_DOTS, True
        )

    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    out_tile = rows[:, None] * (H * D) + channels[None, :]
    query_mask = is_query[:, None] & (channels < D)[None, :]
    tl.store(out_ptr + first_row * (H * D) + head_offset + out_tile, out, mask=query_mask)


@triton.jit
def _load_tile(
    keys_ptr,
    values_ptr,
    key_stride,
    value_stride,
    first,
    end,
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_END: tl.constexpr,
):
    """Return BLOCK_K keys and values from number `first` on; with HAS_END zeros from `end` on."""
    rows = tl.arange(0, BLOCK_K)
    channels = tl.arange(0, BLOCK_D)
    first_row = tl.cast(first, tl.int64)
    keys_ptr += first_row * key_stride + rows[:, None] * key_stride + channels[None, :]
    values_ptr += first_row * value_stride + rows[:, None] * value_stride + channels[None, :]
    if D == BLOCK_D and not HAS_END:
        return tl.load(keys_ptr), tl.load(values_ptr)
    mask = (channels < D)[None, :]
    if HAS_END:
        mask = mask & (first + rows < end)[:, None]
    return tl.load(keys_ptr, mask=mask, other=0.0), tl.load(values_ptr, mask=mask, other=0.0)


@triton.jit
def _attend_tile(
    q,
    k,
    v,
    first,
    last_keys,
    scale_log2e,
    peak,
    total,
    acc,
    FLOAT32_DOTS: tl.constexpr,
    IS_MASKED: tl.constexpr,
):
    """Add keys from number `first` on to the running softmax; each row sees up to its last key.

    After the first tile, every row has seen a key.
    """
    k, v = k.to(q.dtype), v.to(q.dtype)
    scores = tl.dot(q, tl.trans(k), input_precision=FLOAT32_DOTS)
    if IS_MASKED:
        keys = first + tl.arange(0, k.shape[0])
        scores = tl.where(keys[None, :] <= last_keys[:, None], scores, float("-inf"))
    # The scale is positive: one fused multiply-add scales a score and subtracts the peak.
    new_peak = tl.maximum(peak, tl.max(scores, axis=1) * scale_log2e)
    weights = tl.exp2(scores * scale_log2e - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, axis=1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=FLOAT32_DOTS)
    return new_peak, total, acc
