"""Receives an upload: stores its parts in Redis as they arrive, and accepts them as one batch."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import orjson

from app.requests.batch_lines import PartCutter
from app.requests.headers import idempotency
from app.requests.models import BatchOptions
from app.service.submission import key_reused
from app.service.turns import in_turns
from contract.batches import LINE_WORK_BYTES, Batch, Part
from contract.errors import BodyTooLarge, BrokerUnavailable, Overloaded, RequestInvalid
from contract.grammar.lines import Line
from contract.messages import Job
from contract.settings import Settings
from contract.store.admission import KeyReused, QueueDepth, QueueFull
from contract.store.batch_store import Accepted, BatchStore

# Parts are stored in groups: this takes few round trips and little memory.
GROUP_BYTES = 1024**2
GROUP_PARTS = 64
# While an upload goes on, Redis is asked this often how much room it has.
LOAD_MAX_AGE_S = 1.0
# Results in Redis take less than this share of their largest possible size, because zstd compresses
# them and few numbers have the longest form (3.5 to 9 times less, measured on each output).
STORED_SHARE = 1 / 3


class Receiver:
    """Stores one upload as a batch, and deletes it if the batch is not accepted."""

    def __init__(
        self,
        store: BatchStore,
        settings: Settings,
        *,
        options: BatchOptions,
        retry_after_s: Callable[[int], int],
        request_id: str,
    ) -> None:
        self._store = store
        self._settings = settings
        self._retry_after_s = retry_after_s
        self._created_at = time.time()
        deadline_s = options.deadline_s or settings.max_upload_deadline_s
        self._deadline_at = self._created_at + deadline_s
        self._cutter = PartCutter(
            options, settings, deadline_at=self._deadline_at, request_id=request_id
        )
        self._digest = hashlib.sha256(
            orjson.dumps([options.model_dump(), deadline_s], option=orjson.OPT_SORT_KEYS)
        )
        self._num_parts = 0
        self._looked_at = self._renewed_at = time.monotonic()
        self._batch_id = store.new_id()
        self._check_room()

    def digested(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of the decompressed body, and add each to the digest of the request."""
        for piece in pieces:
            self._digest.update(piece)
            self._keep()
            yield piece

    def receive(self, lines: Iterable[Line], idempotency_key: str | None) -> Accepted:
        """Store all lines and accept them as one batch.

        Raises:
            ClientError: a line or the body is wrong; Overloaded, BrokerUnavailable.
        """
        try:
            self._store_all(lines)
            return self._accept(idempotency_key)
        except BrokerUnavailable:
            # It may be accepted although the answer was lost. If it is not, its parts expire.
            raise
        except BaseException:
            self._discard()
            raise

    def _store_all(self, lines: Iterable[Line]) -> None:
        group: list[tuple[Part, Job]] = []
        for part in self._cutter.parts(lines):
            group.append(part)
            group_bytes = sum(cut.num_bytes for cut, _ in group)
            if group_bytes >= GROUP_BYTES or len(group) >= GROUP_PARTS:
                self._store_group(group)
                group = []
        if group:
            self._store_group(group)

    def _store_group(self, group: list[tuple[Part, Job]]) -> None:
        if time.monotonic() > self._looked_at + LOAD_MAX_AGE_S:
            self._check_room()
        self._check_size()
        self._store.store_parts(self._batch_id, in_turns(group))
        self._num_parts += len(group)
        self._renewed_at = time.monotonic()

    def _accept(self, key: str | None) -> Accepted:
        if not self._num_parts:
            raise RequestInvalid(
                "There are no lines to score; send one JSON object per line.",
                errors=[{"detail": "has no lines", "pointer": ""}],
            )
        batch = Batch(
            id=self._batch_id,
            total=self._cutter.num_lines,
            num_bytes=self._cutter.num_bytes,
            num_parts=self._num_parts,
            created_at=self._created_at,
            deadline_at=self._deadline_at,
        )
        promise = idempotency(key, self._digest) if key is not None else None
        try:
            accepted = self._store.accept(batch, promise, work_bytes=self._cutter.work_bytes)
        except KeyReused:
            raise key_reused() from None
        except QueueFull as full:
            raise self._full(full.depth) from None
        if accepted.is_replay:
            self._discard()
        return accepted

    def _keep(self) -> None:
        """Renew the stored parts while the client is slow to send the next group."""
        now = time.monotonic()
        if self._num_parts and now > self._renewed_at + self._settings.upload_ttl_s / 4:
            self._renewed_at = now
            self._store.keep_upload(self._batch_id)

    def _discard(self) -> None:
        # Without this the parts expire, only later.
        with suppress(BrokerUnavailable):
            self._store.discard_upload(self._batch_id)

    def _check_room(self) -> None:
        load = self._store.load()
        self._looked_at = time.monotonic()
        self._max_redis_bytes = load.max_redis_bytes
        is_full = load.num_batches >= self._settings.max_queued_batches
        if is_full or load.num_bytes + self._cutter.work_bytes > self._settings.max_bulk_bytes:
            raise self._full(QueueDepth(load.num_batches, load.num_bytes))
        if load.redis_bytes > load.max_redis_bytes:
            raise Overloaded(
                "Redis has no room for another batch; try again after Retry-After seconds.",
                redis_bytes=load.redis_bytes,
                max_redis_bytes=load.max_redis_bytes,
                retry_after_s=self._retry_after_s(load.num_bytes),
            )

    def _check_size(self) -> None:
        """Refuse a batch that could never be accepted, or whose results could not all be stored."""
        limit_bytes = self._settings.max_bulk_bytes
        if self._cutter.work_bytes > limit_bytes:
            raise BodyTooLarge(
                f"The lines count more than {limit_bytes} bytes, each at least {LINE_WORK_BYTES}; "
                "send them in several batches.",
                limit_bytes=limit_bytes,
            )
        stored_bytes = round(self._cutter.result_bytes * STORED_SHARE)
        limit_bytes = self._max_redis_bytes
        if stored_bytes > limit_bytes:
            raise BodyTooLarge(
                f"The results could take more than the {limit_bytes} bytes of Redis; "
                "send several batches, or ask for fewer outputs (top_k, bytes, spans).",
                limit_bytes=limit_bytes,
            )

    def _full(self, depth: QueueDepth) -> Overloaded:
        return Overloaded(
            "Other batches fill the queue; try again after Retry-After seconds.",
            queued_bytes=depth.bytes,
            max_queued_bytes=self._settings.max_bulk_bytes,
            queued_batches=depth.jobs,
            max_queued_batches=self._settings.max_queued_batches,
            retry_after_s=self._retry_after_s(depth.bytes),
        )
