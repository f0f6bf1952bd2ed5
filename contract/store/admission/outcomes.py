"""Defines the outcomes of a submission: a receipt, a refusal, or a replay of an earlier one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from contract.store.admission.memory import LOOK_AGAIN_S, Memory

IDEMPOTENCY_TTL_S = 86_400
NO_ROOM = frozenset({b"no_room", b"room_share"})
"""The verdicts that depend on the memory of Redis."""
_REFUSALS = frozenset({b"full", b"share", b"quota", *NO_ROOM})

_Accepted = TypeVar("_Accepted")


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Accepted jobs, or accepted batches, that have not ended."""

    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class QuotaLeft:
    """What is left of the quota of an API key; of bytes it may be a debt."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The job that a submission became."""

    task_id: str
    depth: QueueDepth
    is_replay: bool = False
    """The Idempotency-Key was used before for the same request, which `task_id` names."""
    quota_left: QuotaLeft | None = None
    """None if the key has no quota."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Ties an Idempotency-Key to one request by the digests of both."""

    key_digest: str
    request_digest: str


class QueueFull(Exception):
    """The queue has no room for a job or a batch."""

    def __init__(self, depth: QueueDepth, *, is_share: bool = False) -> None:
        """Say what waits: of all clients, or with `is_share` of the one that holds its share."""
        super().__init__("the client's share of the queue is full" if is_share else "queue full")
        self.depth = depth
        self.is_share = is_share


class NoRoom(Exception):
    """Redis has no room for the results of a job or a batch."""

    def __init__(
        self,
        needed_bytes: int,
        promised_bytes: int,
        memory: Memory,
        *,
        is_share: bool = False,
        stored_bytes: int = 0,
    ) -> None:
        """Say what it needs, and the memory of Redis.

        Args:
            promised_bytes: what is promised to all, or with `is_share` to its client.
            is_share: whether the client holds its share of the room.
            stored_bytes: with `is_share`, records and results that its client has stored.
        """
        super().__init__("no room for results")
        self.needed_bytes = needed_bytes
        self.promised_bytes = promised_bytes
        self.memory = memory
        self.is_share = is_share
        self.stored_bytes = stored_bytes

    @property
    def is_for_good(self) -> bool:
        """Whether an empty Redis would have no room either."""
        return 0 < self.memory.capacity_bytes < self.needed_bytes


class QuotaUsedUp(Exception):
    """The API key has used up its quota for now."""

    def __init__(self, left: QuotaLeft, wait_s: int) -> None:
        """Say what is left, and after how many seconds a request passes."""
        super().__init__("the quota is used up")
        self.left = left
        self.wait_s = wait_s


class KeyReused(Exception):
    """An Idempotency-Key was used for another request."""


def accept_or_look_again(accept: Callable[[], _Accepted]) -> _Accepted:
    """What `accept` returns; it is repeated once, a moment later, where there was no room.

    While a worker sends a result, Redis holds it and its promise still counts. `accept` holds no
    turn at Redis while this waits.

    Raises:
        what `accept` raises
    """
    try:
        return accept()
    except NoRoom as refusal:
        if refusal.is_for_good:
            raise
    time.sleep(LOOK_AGAIN_S)
    return accept()


def replayed_id(stored: bytes, idempotency: Idempotency | None) -> str:
    """The ID that an Idempotency-Key stands for, from its value in Redis.

    Raises:
        KeyReused: it stands for another request.
    """
    found_id, _, digest = stored.decode().partition(":")
    if idempotency is None or digest != idempotency.request_digest:
        raise KeyReused
    return found_id


def raise_refusal(
    verdict: bytes, details: Sequence[Any], *, needed_bytes: int, memory: Memory
) -> None:
    """Raise the error of a refusal, as `submit.lua` and `seal_batch.lua` return it.

    Args:
        needed_bytes: room in Redis that the job or batch needs.
        memory: of Redis, as admission saw it.

    Raises:
        NoRoom, QuotaUsedUp, QueueFull
    """
    numbers = tuple(map(int, details)) if verdict in _REFUSALS else ()
    is_share = verdict in (b"share", b"room_share")
    if verdict in NO_ROOM:
        promised, stored = (*numbers, 0)[:2]
        raise NoRoom(needed_bytes, promised, memory, is_share=is_share, stored_bytes=stored)
    if verdict == b"quota":
        raise QuotaUsedUp(QuotaLeft(*numbers[:2]), numbers[2])
    if verdict in (b"full", b"share"):
        raise QueueFull(QueueDepth(*numbers), is_share=is_share)
