"""Prepares one pass: the row indices and rotary tables that all layers share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.evabyte.configuration import EvaByteConfig
from model.ops.backend import Backend
from model.ops.eva_attention import AttentionPlan, plan_attention
from model.ops.rotary import rotary_tables
from model.packing import IntArray, PackedLayout


@dataclass(frozen=True, slots=True)
class PassPlan:
    """Everything a pass needs besides its tokens; row indices are those of `PackedLayout`."""

    rotary: tuple[Tensor, Tensor]  # cosines and sines, each [T, D / 2]
    attention: AttentionPlan
    chunk_starts: Tensor
    split_chunk_rows: Tensor
    past_rows: Tensor
    kept_rows: Tensor
    backend: Backend


def plan_pass(
    layout: PackedLayout, config: EvaByteConfig, embedded: Tensor, backend: Backend
) -> PassPlan:
    """Prepare a pass over the sequences of `layout`, whose tokens are `embedded` [T, channels]."""

    def on_device(rows: IntArray) -> Tensor:
        return torch.from_numpy(rows).to(embedded.device)

    return PassPlan(
        rotary=rotary_tables(
            on_device(layout.positions), head_dim=config.head_dim, theta=config.rope_theta
        ),
        attention=plan_attention(
            layout,
            num_heads=config.num_attention_heads,
            dtype=embedded.dtype,
            device=embedded.device,
            backend=backend,
        ),
        chunk_starts=on_device(layout.chunk_starts),
        split_chunk_rows=on_device(layout.split_chunk_rows),
        past_rows=on_device(layout.past_rows),
        kept_rows=on_device(layout.kept_rows),
        backend=backend,
    )
