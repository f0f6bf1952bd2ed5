"""Computes the next-byte head and its scores with one Triton kernel.

    logits = hidden @ weight^T        log p_v = logits_v - log sum_u exp(logits_u)
    entropy = -sum_v p_v log p_v      variance = sum_v p_v (log p_v + entropy)^2
    rank = 1 + #{v: log p_v > log p_target}

One program computes all V logits of a block of rows in registers and reduces them there: logits are
never in memory. As in the reference, they are rounded to the type of `hidden`, like the "fp32
logits" of the authors. So ties and ranks are the same.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.head_log_likelihood.reference import HeadScores
from model.ops.launching import FLOATS, INDICES, check_arguments, dot_type

# Rows times padded vocabulary: 64 accumulators for each of 256 threads.
MAX_LOGITS = 16_384


def launch_config(vocabulary_size: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the block of rows by ids by channels; its stages fit the shared memory of an L4."""
    block_v = max(triton.next_power_of_2(vocabulary_size), 16)
    return {
        "BLOCK_V": block_v,
        "BLOCK_N": max(MAX_LOGITS // block_v, 16),
        "BLOCK_C": 16 if dtype == torch.float32 else 32,
        "num_warps": 8,
        "num_stages": 2,
    }


def head_log_likelihood(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> HeadScores:
    """Compute what `reference.head_log_likelihood` defines; all tensors contiguous.

    Every target must be below V: checking it would mean to read the targets.

    Raises:
        ValueError: a tensor does not fit the kernel, there are more than 1,024 ids, or
            `top_k` exceeds their number.
    """
    sizes = check_arguments(
        "head_log_likelihood",
        ("hidden", hidden, "N channels", FLOATS),
        ("weight", weight, "V channels", (hidden.dtype,)),
        ("targets", targets, "N", INDICES),
    )
    num_rows, vocabulary_size = sizes["N"], sizes["V"]
    if vocabulary_size > 1024:
        raise ValueError(
            f"head_log_likelihood: {vocabulary_size:,} ids do not fit into registers; "
            "the limit is 1,024, use the torch backend"
        )
    if not 0 <= top_k <= vocabulary_size:
        raise ValueError(
            f"head_log_likelihood: top_k is {top_k}; the limit is the {vocabulary_size} ids"
        )

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=hidden.device)

    scores = HeadScores(
        log_prob=new(num_rows),
        rank=new(num_rows, dtype=torch.int64),
        entropy=new(num_rows) if with_moments else None,
        variance=new(num_rows) if with_moments else None,
        top_ids=new(num_rows, top_k, dtype=torch.int64) if top_k else None,
        top_log_probs=new(num_rows, top_k) if top_k else None,
    )
    if num_rows > 0:
        config = launch_config(vocabulary_size, hidden.dtype)
        head_log_likelihood_fwd_kernel[(triton.cdiv(num_rows, config["BLOCK_N"]),)](
            hidden,
            weight,
            targets,
            scores.log_prob,
            scores.rank,
            scores.entropy,
            scores.variance,
            scores.top_ids,
            scores.top_log_probs,
            num_rows,
            top_k,
            NUM_CHANNELS=sizes["channels"],
            V=vocabulary_size,
            WITH_MOMENTS=with_moments,
            WITH_TOP_K=top_k > 0,
            DOT_TYPE=dot_type(hidden.dtype),
            **config,
        )
    return scores


@triton.jit(do_not_specialize=["num_rows", "top_k"])
def head_log_likelihood_fwd_kernel(
    hidden_ptr,  # [N, NUM_CHANNELS]
    weight_ptr,  # [V, NUM_CHANNELS]
    targets_ptr,  # [N] int64
    log_prob_ptr,  # [N], as entropy and variance, which are None without WITH_MOMENTS
    rank_ptr,  # [N] int64
    entropy_ptr,
    variance_ptr,
    top_ids_ptr,  # [N, top_k], as top_log_probs; None without WITH_TOP_K
    top_log_probs_ptr,
    num_rows,
    top_k,
    NUM_CHANNELS: tl.constexpr,
    V: tl.constexpr,
    WITH_MOMENTS: tl.constexpr,
    WITH_TOP_K: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Project and reduce one block of rows; grid: (blocks,)."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row = rows < num_rows
    ids = tl.arange(0, BLOCK_V)
    is_id = (ids < V)[None, :]

    acc = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    for first in range(0, NUM_CHANNELS, BLOCK_C):
        channels = first + tl.arange(0, BLOCK_C)
        is_channel = (channels < NUM_CHANNELS)[None, :]
        hidden = tl.load(
            hidden_ptr + rows[:, None] * NUM_CHANNELS + channels[None, :],
            mask=is_row[:, None] & is_channel,
            other=0.0,
        )
        weight = tl.load(
            weight_ptr + ids.to(tl.int64)[:, None] * NUM_CHANNELS + channels[None, :],
            mask=(ids < V)[:, None] & is_channel,
            other=0.0,
        )
        acc = tl.dot(
            hidden.to(DOT_TYPE), tl.trans(weight.to(DOT_TYPE)), acc, input_precision="tf32x3"
        )

    logits = acc.to(hidden_ptr.dtype.element_ty).to(tl.float32)
    logits = tl.where(is_id, logits, float("-inf"))
    shifted = logits - tl.max(logits, axis=1)[:, None]
    log_probs = shifted - tl.log(tl.sum(tl.exp(shifted), axis=1))[:, None]

    target_ids = tl.load(targets_ptr + rows, mask=is_row, other=0)
    is_target = ids[None, :] == target_ids[:, None]
    target = tl.sum(tl.where(is_target, log_probs, 0.0), axis=1)
    is_likelier = (log_probs > target[:, None]).to(tl.int32)
    tl.store(log_prob_ptr + rows, target, mask=is_row)
    tl.store(rank_ptr + rows, 1 + tl.sum(is_likelier, axis=1).to(tl.int64), mask=is_row)

    if WITH_MOMENTS:
        # Padding ids have probability 0, and 0 times minus infinity is not a number.
        finite = tl.where(is_id, log_probs, 0.0)
        probs = tl.exp(log_probs)
        mean = tl.sum(probs * finite, axis=1)
        deviations = finite - mean[:, None]
        tl.store(entropy_ptr + rows, -mean, mask=is_row)
        tl.store(variance_ptr + rows, tl.sum(probs * deviations * deviations, axis=1), mask=is_row)

    if WITH_TOP_K:
        remaining = log_probs
        for place in range(top_k):
            # Of equal ones the lowest id comes first, as in the stable sort of the reference.
            best, best_ids = tl.max(remaining, axis=1, return_indices=True)
            tl.store(top_ids_ptr + rows * top_k + place, best_ids.to(tl.int64), mask=is_row)
            tl.store(top_log_probs_ptr + rows * top_k + place, best, mask=is_row)
            remaining = tl.where(ids[None, :] == best_ids[:, None], float("-inf"), remaining)
