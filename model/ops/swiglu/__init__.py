"""The gate of the feed-forward layer."""

from model.ops.swiglu.reference import swiglu

__all__ = ["swiglu"]
