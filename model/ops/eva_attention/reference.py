"""Defines attention of packed windows, segment by segment, in plain PyTorch."""

import torch
from torch import Tensor

from model.packing import PackedLayout


def eva_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_summaries: Tensor,
    value_summaries: Tensor,
    layout: PackedLayout,
) -> Tensor:
    """Attend from every token to its window, up to itself, and to earlier chunk summaries.

    q, k, v: [T, H, D]; key_summaries, value_summaries: [C, H, D]. One softmax over both kinds,
    in float32; a summary counts as one key. Returns [T, H, D] in the type of `q`.
    """
    outputs = []
    for start, length, first, count in zip(
        layout.segment_starts.tolist(),
        layout.segment_lengths.tolist(),
        layout.summary_starts.tolist(),
        layout.num_summaries.tolist(),
        strict=True,
    ):
        window, past = slice(start, start + length), slice(first, first + count)
        keys = torch.cat((key_summaries[past], k[window])).float()  # [past + window, H, D]
        values = torch.cat((value_summaries[past], v[window])).float()
        scores = torch.einsum("qhd,khd->hqk", q[window].float(), keys) * q.shape[-1] ** -0.5
        is_later = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1 + count)
        weights = scores.masked_fill(is_later, float("-inf")).softmax(dim=-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(outputs).to(q.dtype) if outputs else torch.empty_like(q)
