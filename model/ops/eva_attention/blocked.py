"""Computes attention of packed windows by batched matrix products over blocks of queries.

Segments of similar length share one product. A block of queries never multiplies later keys.
Segments with the same past, the continuations of one context, also share its rows.

On a GPU without Triton a launch costs more than a masked product: there PyTorch's fused attention
computes each group in one operation, without scores in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

from model.packing import IntArray, PackedLayout

# The demo model's speed on texts of 100 to 400 bytes is the same, within the noise of an AVX-512
# CPU, for steps of 8 to 64 and blocks of 64 to 256: little padding and scores that stay in cache.
# Every segment with its own past is padded to the next step, alone or not: the bits of a row of a
# product depend on the product's shape, not on the number of products (docs/numerics.md).
LENGTH_STEP = 16
QUERIES_PER_BLOCK = 128
# Scores of one product over a past of 2,048 rows: 4 MB per head, as for a block of a long window.
MAX_SHARING_QUERIES = 512


@dataclass(frozen=True, slots=True)
class _Group:
    """Segments of one product: each has as many queries and keys, the last ones are padding.

    The rows are in the order segment, head, token. If the segments share their past, its
    `num_shared` rows per head come first and do not count in `num_keys`. The order is then head,
    segment, token.
    """

    num_segments: int
    num_queries: int
    num_keys: int
    num_shared: int
    mask: Tensor | None  # [queries, keys], for fused attention after a past


@dataclass(frozen=True, slots=True)
class BlockedPlan:
    """The source rows of all products and the places of their results; all layers share it.

    Row numbers are token * H + head; the rows of summaries follow those of tokens.
    """

    groups: tuple[_Group, ...]
    query_rows: Tensor  # [sum of segments * H * queries] int64
    key_rows: Tensor  # [sum of segments * H * keys] int64
    output_rows: Tensor  # [T * H] int64, indices into query_rows
    fused_dtype: torch.dtype | None


def plan_attention(
    layout: PackedLayout,
    *,
    num_heads: int,
    device: torch.device,
    fused_dtype: torch.dtype | None = None,
) -> BlockedPlan:
    """Group the segments of `layout` into products and number their rows, on the host.

    With `fused_dtype`, the type of its inputs, PyTorch's fused attention computes them on `device`.
    Masks are made there: they are too large to be copied in every pass.
    """
    heads = np.arange(num_heads)
    output_rows = np.empty((layout.num_tokens, num_heads), dtype=np.int64)
    groups, query_rows, key_rows, num_rows = [], [], [], 0
    for members in _members_of_groups(layout):
        first = members[0]
        past = layout.summary_starts[members, None] + np.arange(layout.num_summaries[first])
        past += layout.num_tokens
        is_shared = len(members) > 1 and past.size > 0 and (past[:, 0] == past[0, 0]).all()
        tokens, is_real = _tokens_of(layout, members, step=1 if is_shared else LENGTH_STEP)
        num_segments, num_queries = tokens.shape
        keys = tokens if is_shared else np.concatenate((past, tokens), axis=1)
        if is_shared:
            key_rows.append(_rows(past[:1], heads))
        num_keys, num_shared = keys.shape[1], past.shape[1] if is_shared else 0
        mask = None
        if fused_dtype is not None and not is_shared and past.size:
            mask = _causal_mask(num_queries, num_keys, fused_dtype, device)
        groups.append(_Group(num_segments, num_queries, num_keys, num_shared, mask))
        query_rows.append(_rows(tokens, heads, is_head_first=is_shared))
        key_rows.append(_rows(keys, heads, is_head_first=is_shared))
        segment, query = np.nonzero(is_real)
        places = (
            heads * num_segments + segment[:, None]
            if is_shared
            else segment[:, None] * num_heads + heads
        )
        output_rows[tokens[is_real]] = num_rows + places * num_queries + query[:, None]
        num_rows += num_segments * num_heads * num_queries

    return BlockedPlan(
        groups=tuple(groups),
        query_rows=_joined(query_rows),
        key_rows=_joined(key_rows),
        output_rows=torch.from_numpy(output_rows.reshape(-1)),
        fused_dtype=fused_dtype,
    )


def eva_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_summaries: Tensor,
    value_summaries: Tensor,
    plan: BlockedPlan,
) -> Tensor:
    """Compute what `reference.eva_attention` defines, for the layout that `plan` was made from.

    q, k, v: [T, H, D]; key_summaries, value_summaries: [C, H, D]. Scores are rounded to the type
    of `q`; the softmax is float32 inside.
    """
    num_heads, head_dim = q.shape[1:]
    q_rows = q.reshape(-1, head_dim).index_select(0, plan.query_rows)
    k_rows = _with_summaries(k, key_summaries).index_select(0, plan.key_rows)
    v_rows = _with_summaries(v, value_summaries).index_select(0, plan.key_rows)

    outputs, query_start, key_start = [], 0, 0
    for group in plan.groups:
        num_products = group.num_segments * num_heads
        query_end = query_start + num_products * group.num_queries
        own_start = key_start + num_heads * group.num_shared
        key_end = own_start + num_products * group.num_keys
        queries = q_rows[query_start:query_end].view(num_products, group.num_queries, head_dim)
        own_shape = (num_products, group.num_keys, head_dim)
        own_k = k_rows[own_start:key_end].view(own_shape)
        own_v = v_rows[own_start:key_end].view(own_shape)
        if group.num_shared:
            shared_shape = (num_heads, group.num_shared, head_dim)
            shared_k = k_rows[key_start:own_start].view(shared_shape)
            shared_v = v_rows[key_start:own_start].view(shared_shape)
            output = _attention_after(shared_k, shared_v, queries, own_k, own_v)
        elif plan.fused_dtype is None:
            output = _causal_attention(queries, own_k, own_v)
        else:
            by_head = (group.num_segments, num_heads)
            q_k_v = [part.unflatten(0, by_head) for part in (queries, own_k, own_v)]
            output = _fused_attention(q_k_v, group.mask, plan.fused_dtype)
        outputs.append(output.reshape(-1, head_dim))
        query_start, key_start = query_end, key_end
    if not outputs:
        return torch.empty_like(q)
    return torch.cat(outputs).index_select(0, plan.output_rows).view(q.shape)


def _members_of_groups(layout: PackedLayout) -> Iterator[IntArray]:
    """Yield the segments of each group: alike in length and past, or in length with one past."""
    buckets = -(-layout.segment_lengths // LENGTH_STEP)
    pasts = np.stack((layout.summary_starts, layout.num_summaries), axis=1)
    _, past_of_segment, num_alike = np.unique(
        pasts, axis=0, return_inverse=True, return_counts=True
    )
    past_of_segment = past_of_segment.reshape(-1)
    is_sharing = (num_alike[past_of_segment] > 1) & (layout.num_summaries > 0)
    kinds = np.stack((np.where(is_sharing, past_of_segment, -1), pasts[:, 1], buckets), axis=1)
    kinds, kind_of_segment = np.unique(kinds, axis=0, return_inverse=True)
    by_kind = np.argsort(kind_of_segment.reshape(-1), kind="stable")
    counts = np.bincount(kind_of_segment.reshape(-1), minlength=len(kinds))
    by_group = np.split(by_kind, counts.cumsum())[:-1]
    for (past, _, _), members in zip(kinds, by_group, strict=True):
        longest = int(layout.segment_lengths[members].max())
        step = len(members) if past < 0 else max(MAX_SHARING_QUERIES // longest, 1)
        for start in range(0, len(members), step):
            yield members[start : start + step]


def _tokens_of(
    layout: PackedLayout, segments: IntArray, *, step: int
) -> tuple[IntArray, np.ndarray]:
    """Return the tokens of `segments` [segments, padded] and which of them are no padding.

    They are padded to a multiple of `step`. Padding repeats the segment's own last token: it comes
    after all real queries, so that none sees it, and it cannot carry another text's numbers here.
    """
    lengths = layout.segment_lengths[segments, None]
    offsets = np.arange(-(-lengths.max() // step) * step)
    tokens = layout.segment_starts[segments, None] + np.minimum(offsets, lengths - 1)
    return tokens, offsets < lengths


def _rows(tokens: IntArray, heads: IntArray, *, is_head_first: bool = False) -> IntArray:
    """Number the rows of `tokens` [segments, n] in the order segment, head, token.

    With `is_head_first` in the order head, segment, token.
    """
    if is_head_first:
        return (tokens * len(heads) + heads[:, None, None]).reshape(-1)
    return (tokens[:, None, :] * len(heads) + heads[:, None]).reshape(-1)


def _joined(parts: list[IntArray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


def _with_summaries(tokens: Tensor, summaries: Tensor) -> Tensor:
    """The rows of [T, H, D] and [C, H, D] below each other."""
    rows = torch.cat((tokens, summaries)) if len(summaries) else tokens
    return rows.reshape(-1, tokens.shape[-1])


def _attention_after(shared_k: Tensor, shared_v: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to a past that the segments of a head share and, causally, to the own keys.

    shared_k, shared_v: [H, past, D]; q, k, v: [H * segments, queries, D].
    """
    num_heads, num_shared = shared_k.shape[:2]
    by_head = (num_heads, -1, q.shape[2])
    scale = q.shape[-1] ** -0.5
    shared_scores = torch.bmm(q.view(by_head), shared_k.transpose(1, 2)) * scale
    mask = torch.full((q.shape[1],) * 2, float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    scores = torch.cat(
        (shared_scores.view(len(q), -1, num_shared), _masked_scores(q, k, mask)), dim=-1
    )
    weights = _softmax(scores)
    of_shared = weights[..., :num_shared].reshape(num_heads, -1, num_shared)
    attended = torch.bmm(of_shared, shared_v).view(q.shape)
    return torch.baddbmm(attended, weights[..., num_shared:], v)


def _causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend causally, the last query seeing all keys; q: [n, queries, D], k, v: [n, keys, D]."""
    num_queries, num_past = q.shape[1], k.shape[1] - q.shape[1]
    rows = min(num_queries, QUERIES_PER_BLOCK)
    mask = torch.full((rows, rows), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    outputs = []
    for start in range(0, num_queries, QUERIES_PER_BLOCK):
        end = min(num_queries, start + QUERIES_PER_BLOCK)
        visible = slice(0, num_past + end)
        block_mask = mask[: end - start, : end - start]
        scores = _masked_scores(q[:, start:end], k[:, visible], block_mask)
        outputs.append(torch.bmm(_softmax(scores), v[:, visible]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _softmax(scores: Tensor) -> Tensor:
    """Return the softmax of each row of `scores`; it takes their place, except for a gradient.

    Scores stay in the cache better than a second matrix as large. Each row is read before it is
    written, so the bits are those of a new matrix.
    """
    return torch.softmax(scores, dim=-1, out=None if scores.requires_grad else scores)


def _fused_attention(q_k_v: Sequence[Tensor], mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Compute `_causal_attention` by PyTorch's fused attention in `dtype`; [n, H, rows, D]."""
    q, k, v = (rows.to(dtype) for rows in q_k_v)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return attended.to(q_k_v[0].dtype)


def _causal_mask(
    num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return what is added to scores where the last query sees all keys: [queries, keys]."""
    mask = torch.full((num_queries, num_keys), float("-inf"), dtype=dtype, device=device)
    return mask.triu(1 + num_keys - num_queries)


def _masked_scores(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """Return q k^T / sqrt(D), with `mask` [queries, queries] added to the last keys."""
    scale = q.shape[-1] ** -0.5
    num_earlier = k.shape[1] - q.shape[1]
    if num_earlier == 0:
        return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    scores = torch.baddbmm(mask[:1, :1], q, k.transpose(1, 2), alpha=scale, beta=0)
    scores[..., num_earlier:] += mask
    return scores
