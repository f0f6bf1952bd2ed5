"""Attention of packed windows by batched matrix products over blocks of queries.

Segments of nearly equal length share one product; a block of queries never multiplies the keys
that lie after it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.packing import IntArray, PackedLayout

# Measured on two AVX-512 cores with texts of 100 to 400 bytes; see `Segments of one product`.
LENGTH_STEP = 16
QUERIES_PER_BLOCK = 128


@dataclass(frozen=True, slots=True)
class _Group:
    """Segments of one product: all have as many queries and keys, the last ones padded."""

    num_segments: int
    num_queries: int
    num_keys: int


@dataclass(frozen=True, slots=True)
class BlockedPlan:
    """Where the rows of the products come from and where the results go; shared by all layers.

    Rows are numbered token * H + head; those of the summaries follow those of the tokens.
    """

    groups: tuple[_Group, ...]
    query_rows: Tensor  # [sum of segments * H * queries] int64
    key_rows: Tensor  # [sum of segments * H * keys] int64
    output_rows: Tensor  # [T * H] int64, places in query_rows


def plan_attention(layout: PackedLayout, *, num_heads: int, device: torch.device) -> BlockedPlan:
    """Group the segments of `layout` into products and number their rows."""
    buckets = -(-layout.segment_lengths // LENGTH_STEP)
    kinds = np.stack((layout.num_summaries, buckets), axis=1)
    kinds, kind_of_segment = np.unique(kinds, axis=0, return_inverse=True)
    kind_of_segment = kind_of_segment.reshape(-1)

    heads = np.arange(num_heads)
    output_rows = np.empty((layout.num_tokens, num_heads), dtype=np.int64)
    groups, query_rows, key_rows, num_rows = [], [], [], 0
    for kind in range(len(kinds)):
        members = np.flatnonzero(kind_of_segment == kind)
        tokens, is_real = _tokens_of(layout, members)
        num_segments, num_queries = tokens.shape
        past = layout.summary_starts[members, None] + np.arange(kinds[kind, 0])
        keys = np.concatenate((layout.num_tokens + past, tokens), axis=1)

        groups.append(_Group(num_segments, num_queries, keys.shape[1]))
        query_rows.append(_rows(tokens, heads))
        key_rows.append(_rows(keys, heads))
        segment, query = np.nonzero(is_real)
        places = (segment[:, None] * num_heads + heads) * num_queries + query[:, None]
        output_rows[tokens[is_real]] = num_rows + places
        num_rows += num_segments * num_heads * num_queries

    return BlockedPlan(
        groups=tuple(groups),
        query_rows=_to_device(query_rows, device),
        key_rows=_to_device(key_rows, device),
        output_rows=_to_device([output_rows.reshape(-1)], device),
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
        batch = group.num_segments * num_heads
        query_end = query_start + batch * group.num_queries
        key_end = key_start + batch * group.num_keys
        output = _causal_attention(
            q_rows[query_start:query_end].view(batch, group.num_queries, head_dim),
            k_rows[key_start:key_end].view(batch, group.num_keys, head_dim),
            v_rows[key_start:key_end].view(batch, group.num_keys, head_dim),
        )
        outputs.append(output.view(-1, head_dim))
        query_start, key_start = query_end, key_end
    if not outputs:
        return torch.empty_like(q)
    return torch.cat(outputs).index_select(0, plan.output_rows).view(q.shape)


def _tokens_of(layout: PackedLayout, segments: IntArray) -> tuple[IntArray, np.ndarray]:
    """Return the tokens of `segments` [segments, longest] and which of them are no padding.

    Padding repeats the segment's own last token: it comes after all real queries, so that none
    sees it, and it cannot carry another text's numbers here.
    """
    lengths = layout.segment_lengths[segments, None]
    offsets = np.arange(lengths.max())
    tokens = layout.segment_starts[segments, None] + np.minimum(offsets, lengths - 1)
    return tokens, offsets < lengths


def _rows(tokens: IntArray, heads: IntArray) -> IntArray:
    """Number the rows of `tokens` [segments, n] in the order segment, head, token."""
    return (tokens[:, None, :] * len(heads) + heads[:, None]).reshape(-1)


def _to_device(parts: list[IntArray], device: torch.device) -> Tensor:
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    return torch.from_numpy(rows).to(device)


def _with_summaries(tokens: Tensor, summaries: Tensor) -> Tensor:
    """The rows of [T, H, D] and [C, H, D] below each other."""
    rows = torch.cat((tokens, summaries)) if len(summaries) else tokens
    return rows.reshape(-1, tokens.shape[-1])


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
        outputs.append(torch.bmm(scores.softmax(dim=-1), v[:, visible]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _masked_scores(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """Return q k^T / sqrt(D), with `mask` [queries, queries] added to the last keys."""
    scale = q.shape[-1] ** -0.5
    num_earlier = k.shape[1] - q.shape[1]
    if num_earlier == 0:
        return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    scores = torch.baddbmm(mask[:1, :1], q, k.transpose(1, 2), alpha=scale, beta=0)
    scores[..., num_earlier:] += mask
    return scores
