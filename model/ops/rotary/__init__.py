"""Rotary position embedding."""

from model.ops.rotary.reference import rotary_tables, rotate

__all__ = ["rotary_tables", "rotate"]
