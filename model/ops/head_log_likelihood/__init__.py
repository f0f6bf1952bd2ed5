"""Scores bytes with the next-byte head, without keeping its distributions."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.head_log_likelihood import blocked
from model.ops.head_log_likelihood.reference import HeadScores


def head_log_likelihood(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    with_moments: bool,
    top_k: int,
    backend: Backend,
) -> HeadScores:
    """Compute what `reference.head_log_likelihood` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.head_log_likelihood import kernel

        return kernel.head_log_likelihood(
            hidden, weight, targets, with_moments=with_moments, top_k=top_k
        )
    return blocked.head_log_likelihood(
        hidden, weight, targets, with_moments=with_moments, top_k=top_k
    )


__all__ = ["HeadScores", "head_log_likelihood"]
