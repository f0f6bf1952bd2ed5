"""Computes chunk summaries with one Triton kernel that reads each key and value once.

`reference.py` has the formula and its sources. One program summarises one chunk of one head. A
short chunk, of up to 16 to 256 tokens, is one tile. A longer one is read tile by tile, with a
running maximum and sum for each of the two softmaxes (Milakov and Gimelshein 2018,
arXiv:1805.02867, algorithm 3).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, INDICES, check_arguments

LOG2_E = math.log2(math.e)

# A tile of keys and one of values in float32: 64 registers of each of 128 threads.
MAX_TILE = 4096


def launch_config(chunk_size: int, head_dim: int) -> dict[str, int]:
    """Return the tile of tokens by channels that one step of the kernel reads."""
    block_d = triton.next_power_of_2(head_dim)
    block_t = min(triton.next_power_of_2(chunk_size), max(MAX_TILE // block_d, 1))
    return {"BLOCK_T": block_t, "BLOCK_D": block_d, "num_warps": 4}


def chunk_summaries(
    keys: Tensor,
    values: Tensor,
    chunk_starts: Tensor,
    *,
    chunk_size: int,
    mu: Tensor,
    phi: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.chunk_summaries` defines.

    All tensors are contiguous, but keys and values may be parts of one product. Every chunk must
    lie within `keys`: checking it would mean to read `chunk_starts`.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "chunk_summaries",
        ("keys", keys, "T H D", FLOATS),
        ("values", values, "T H D", (keys.dtype,)),
        ("chunk_starts", chunk_starts, "C", INDICES),
        ("mu", mu, "H D", FLOATS),
        ("phi", phi, "H D", (mu.dtype,)),
        rows_apart=("keys", "values"),
    )
    num_chunks, num_heads, head_dim = sizes["C"], sizes["H"], sizes["D"]
    key_summaries = torch.empty(
        (num_chunks, num_heads, head_dim), dtype=keys.dtype, device=keys.device
    )
    value_summaries = torch.empty_like(key_summaries)
    if num_chunks == 0:
        return key_summaries, value_summaries
    chunk_summaries_fwd_kernel[(num_chunks, num_heads)](
        keys,
        values,
        chunk_starts,
        mu,
        phi,
        key_summaries,
        value_summaries,
        keys.stride(0),
        values.stride(0),
        head_dim**-0.5,
        chunk_size,
        H=num_heads,
        D=head_dim,
        LOG2_E=LOG2_E,
        **launch_config(chunk_size, head_dim),
    )
    return key_summaries, value_summaries


@triton.jit
def chunk_summaries_fwd_kernel(
    keys_ptr,  # [T, H, D], key_stride from token to token
    values_ptr,  # [T, H, D], value_stride from token to token
    chunk_starts_ptr,  # [C] int64
    mu_ptr,  # [H, D], as phi
    phi_ptr,
    key_summaries_ptr,  # [C, H, D], as value_summaries
    value_summaries_ptr,
    key_stride,
    value_stride,
    scale,
    chunk_size,
    H: tl.constexpr,
    D: tl.constexpr,
    LOG2_E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Summarise one chunk of one head; grid: (C, H)."""
    chunk = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK_D)
    is_channel = channels < D
    mu = tl.load(mu_ptr + head * D + channels, mask=is_channel, other=0.0).to(tl.float32)
    phi = tl.load(phi_ptr + head * D + channels, mask=is_channel, other=0.0).to(tl.float32)
    first_token = tl.load(chunk_starts_ptr + chunk)

    key_peak = float("-inf")
    value_peak = float("-inf")
    key_total = 0.0
    value_total = 0.0
    key_acc = tl.zeros([BLOCK_D], tl.float32)
    value_acc = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, chunk_size, BLOCK_T):
        tokens = first + tl.arange(0, BLOCK_T)
        is_token = tokens < chunk_size
        rows = (first_token + tokens)[:, None]
        in_row = head * D + channels[None, :]
        mask = is_token[:, None] & is_channel[None, :]
        k = tl.load(keys_ptr + rows * key_stride + in_row, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(values_ptr + rows * value_stride + in_row, mask=mask, other=0.0).to(tl.float32)

        key_scores = tl.sum(k * mu[None, :], axis=1)
        value_scores = tl.sum(k * phi[None, :] - k * k / 2, axis=1) * scale
        key_peak, key_total, key_acc = _add_tile(
            k, tl.where(is_token, key_scores * LOG2_E, float("-inf")), key_peak, key_total, key_acc
        )
        value_peak, value_total, value_acc = _add_tile(
            v,
            tl.where(is_token, value_scores * LOG2_E, float("-inf")),
            value_peak,
            value_total,
            value_acc,
        )

    offsets = (chunk * H + head) * D + channels
    dtype = key_summaries_ptr.dtype.element_ty
    tl.store(key_summaries_ptr + offsets, (key_acc / key_total).to(dtype), mask=is_channel)
    tl.store(value_summaries_ptr + offsets, (value_acc / value_total).to(dtype), mask=is_channel)


@triton.jit
def _add_tile(rows, scores, peak, total, acc):
    """Add the `rows` [BLOCK_T, BLOCK_D] of one tile to a running softmax over `scores`."""
    new_peak = tl.maximum(peak, tl.max(scores, axis=0))
    weights = tl.exp2(scores - new_peak)
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, axis=0)
    acc = acc * shrink + tl.sum(rows * weights[:, None], axis=0)
    return new_peak, total, acc
