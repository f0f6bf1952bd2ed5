"""Summarises chunks of keys and values, so that later windows can attend to them."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.chunk_summaries import reference


def chunk_summaries(
    keys: Tensor,
    values: Tensor,
    chunk_starts: Tensor,
    *,
    chunk_size: int,
    mu: Tensor,
    phi: Tensor,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.chunk_summaries` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.chunk_summaries import kernel

        return kernel.chunk_summaries(
            keys, values, chunk_starts, chunk_size=chunk_size, mu=mu, phi=phi
        )
    return reference.chunk_summaries(
        keys, values, chunk_starts, chunk_size=chunk_size, mu=mu, phi=phi
    )


__all__ = ["chunk_summaries"]
