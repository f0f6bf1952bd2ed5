"""Attention of packed windows over their own tokens and the summaries of earlier windows."""

from model.ops.eva_attention.blocked import AttentionPlan, eva_attention, plan_attention

__all__ = ["AttentionPlan", "eva_attention", "plan_attention"]
