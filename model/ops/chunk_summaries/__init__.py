"""Summaries of chunks of keys and values, by which later windows see them."""

from model.ops.chunk_summaries.reference import chunk_summaries

__all__ = ["chunk_summaries"]
