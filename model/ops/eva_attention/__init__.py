"""Attends from packed windows to their own tokens and to the summaries of earlier windows."""

import torch
from torch import Tensor

from model.ops.backend import Backend
from model.ops.eva_attention import blocked, kernel_plan
from model.ops.rotary.in_place import rotate
from model.packing import PackedLayout

AttentionPlan = blocked.BlockedPlan | kernel_plan.KernelPlan


def plan_attention(
    layout: PackedLayout,
    *,
    num_heads: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: Backend,
) -> AttentionPlan:
    """Prepare the attention of one pass for `backend`; all layers share the plan.

    dtype, device: those of the activations. Row numbers stay on the host, so that one copy can take
    them to the device together with the rest of a pass (`to_device`).
    """
    if backend == "triton":
        return kernel_plan.plan_attention(layout, dtype=dtype, device=torch.device("cpu"))
    return blocked.plan_attention(
        layout,
        num_heads=num_heads,
        device=device,
        fused_dtype=_fused_dtype(dtype, device) if device.type == "cuda" else None,
    )


def _fused_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type for PyTorch's fused attention: below 8.0 it has no form for bfloat16."""
    is_old = torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float32 if is_old and dtype == torch.bfloat16 else dtype


def eva_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_summaries: Tensor,
    value_summaries: Tensor,
    plan: AttentionPlan,
    *,
    rotary: tuple[Tensor, Tensor],
) -> Tensor:
    """Compute what `reference.eva_attention` defines, with the version that `plan` was made for.

    Here `q` is not rotated yet: `rotary` holds the cosines and sines of its tokens, of
    `rotary_tables`. Keys are rotated.
    """
    if isinstance(plan, kernel_plan.KernelPlan):
        from model.ops.eva_attention import kernel

        return kernel.eva_attention(q, k, v, key_summaries, value_summaries, plan, rotary=rotary)
    return blocked.eva_attention(rotate(q, *rotary), k, v, key_summaries, value_summaries, plan)


__all__ = ["AttentionPlan", "eva_attention", "plan_attention"]
