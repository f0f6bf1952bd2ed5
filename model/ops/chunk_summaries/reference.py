"""Defines the summaries of chunks of keys and values (EVA, Zheng et al. 2023, arXiv:2302.04542).

There is one summary per chunk and head, as in the authors' code (OpenEvaByte/evabyte at 432331ad,
eva_pt_ref.py). One learned vector replaces the random features of the paper.
"""

import torch
from torch import Tensor


def chunk_summaries(
    keys: Tensor,
    values: Tensor,
    chunk_starts: Tensor,
    *,
    chunk_size: int,
    mu: Tensor,
    phi: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the key and the value summary, each [C, H, D], of `chunk_size` tokens per chunk.

    keys, values: [T, H, D], keys rotated; chunk_starts: [C] int64; mu, phi: [H, D].

        key   = sum_j softmax_j(mu . k_j) k_j                               without 1/sqrt(D)
        value = sum_j softmax_j((phi . k_j - |k_j|^2 / 2) / sqrt(D)) v_j

    Computed in float32, returned in the type of `keys`.
    """
    tokens = chunk_starts[:, None] + torch.arange(chunk_size, device=keys.device)
    k, v = keys[tokens].float(), values[tokens].float()  # [C, chunk, H, D]

    key_weights = (k * mu.float()).sum(-1).softmax(dim=1)  # [C, chunk, H]
    scaled = (k * phi.float() - k.square() / 2).sum(-1) * k.shape[-1] ** -0.5
    value_weights = scaled.softmax(dim=1)

    key_summaries = (key_weights[..., None] * k).sum(1)
    value_summaries = (value_weights[..., None] * v).sum(1)
    return key_summaries.to(keys.dtype), value_summaries.to(keys.dtype)
