"""The next-byte head and what is kept of its distributions."""

from model.ops.head_log_likelihood.reference import HeadScores, head_log_likelihood

__all__ = ["HeadScores", "head_log_likelihood"]
