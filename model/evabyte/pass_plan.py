"""Prepares one pass: the row indices and rotary tables that all layers share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.evabyte.configuration import EvaByteConfig
from model.evabyte.transfers import to_device
from model.ops.backend import Backend
from model.ops.eva_attention import AttentionPlan, plan_attention
from model.ops.rotary import rotary_frequencies, rotary_tables
from model.packing import PackedLayout


@dataclass(frozen=True, slots=True)
class PassPlan:
    """Everything a pass needs besides weights; row indices are those of `PackedLayout`."""

    input_ids: Tensor  # [T] int64
    rotary: tuple[Tensor, Tensor]  # cosines and sines, each [T, D / 2]
    attention: AttentionPlan
    chunk_starts: Tensor
    split_chunk_rows: Tensor
    past_rows: Tensor
    kept_rows: Tensor
    backend: Backend


def plan_pass(
    layout: PackedLayout,
    config: EvaByteConfig,
    input_ids: Tensor,
    *,
    embedded: tuple[torch.dtype, torch.device],
    backend: Backend,
) -> PassPlan:
    """Prepare a pass over the sequences of `layout`, whose tokens are `input_ids` [T].

    `embedded` is the type and the device of the activations. What is on the host goes to this
    device in one copy.
    """
    dtype, device = embedded
    attention = plan_attention(
        layout,
        num_heads=config.num_attention_heads,
        dtype=dtype,
        device=device,
        backend=backend,
    )
    rows = (
        layout.positions,
        layout.chunk_starts,
        layout.split_chunk_rows,
        layout.past_rows,
        layout.kept_rows,
    )
    frequencies = rotary_frequencies(head_dim=config.head_dim, theta=config.rope_theta)
    on_host = input_ids, attention, frequencies, tuple(map(torch.from_numpy, rows))
    ids, attention, frequencies, on_device = to_device(on_host, device)
    positions, chunk_starts, split_chunk_rows, past_rows, kept_rows = on_device
    return PassPlan(
        input_ids=ids,
        rotary=rotary_tables(positions, frequencies),
        attention=attention,
        chunk_starts=chunk_starts,
        split_chunk_rows=split_chunk_rows,
        past_rows=past_rows,
        kept_rows=kept_rows,
        backend=backend,
    )
