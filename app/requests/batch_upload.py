"""Receives an upload: stores its parts in Redis as they arrive, and accepts them as one batch."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import orjson

from app.requests.batch_lines import PartCutter
from app.requests.headers import idempotency
from app.requests.models import BatchOptions
from app.service.retry_after import MAX_RETRY_S, RetryEstimate
from app.service.served_models import Target
from app.service.submission import key_reused
from app.service.turns import LargeWork, in_turns
from contract.api_keys import NO_QUOTA, Quota
from contract.batches import LINE_WORK_BYTES, Batch, Part
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    ModelNotFound,
    Overloaded,
    RequestInvalid,
)
from contract.grammar.lines import Line
from contract.messages import Job, owner_of
from contract.settings import Settings
from contract.store.admission.outcomes import KeyReused, NoRoom, QueueDepth, QueueFull
from contract.store.batches.batch_store import BatchStore
from contract.store.batches.sealing import Accepted

# Parts are stored in groups: this takes few round trips and little memory.
GROUP_BYTES = 1024**2
GROUP_PARTS = 64
# While an upload goes on, Redis is asked this often how many batches wait.
LOAD_MAX_AGE_S = 1.0
# Redis is asked for so many models that lines name; a batch has one.
MAX_MODEL_NAMES = 8


class Receiver:
    """Stores one upload as a batch, and deletes it if the batch is not accepted."""

    def __init__(
        self,
        store: BatchStore,
        settings: Settings,
        *,
        options: BatchOptions,
        retry: RetryEstimate,
        target: Callable[[str], Target],
        request_id: str,
        large_work: LargeWork,
        client: str = "",
        quota: Quota = NO_QUOTA,
        answers_completions: bool = False,
    ) -> None:
        """Check that there is room for an upload.

        Args:
            large_work: as for `PartCutter`.
            answers_completions: whether lines are those of an OpenAI batch, and get completions.

        Raises:
            ModelNotFound, Overloaded, QuotaUsedUp, BrokerUnavailable
        """
        self._store = store
        self._settings = settings
        self._retry = retry
        # Known before the body is read: a model that is not served is refused at once.
        name = target(options.model or "").name
        self._target, self._asked_model = target, options.model or name
        self._model_name, self._named_models = name, dict[str, bool]()
        self._client, self._owner = client, owner_of(client)
        self._created_at = store.now()
        deadline_s = options.deadline_s or settings.max_upload_deadline_s
        self._deadline_at = self._created_at + deadline_s
        self._cutter = PartCutter(
            options,
            settings,
            deadline_at=self._deadline_at,
            request_id=request_id,
            client=client,
            model=name,
            serves=self._serves,
            answers_completions=answers_completions,
            large_work=large_work,
        )
        # Uploads without a model keep the digests that they had before models could be asked for.
        # So do those without columns.
        later = ("model", "text_field", "id_field")
        asked = options.model_dump(exclude={n for n in later if not getattr(options, n)})
        if answers_completions:
            asked["completions"] = True
        self._digest = hashlib.sha256(
            orjson.dumps([asked, deadline_s], option=orjson.OPT_SORT_KEYS)
        )
        self._num_parts = self._stored_bytes = 0
        self._looked_at = self._renewed_at = time.monotonic()
        self._batch_id = store.new_id(self._owner)
        self._quota = quota
        # Before the upload is read, where it would be refused afterwards.
        self._store.check_quota(quota)
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
        self._store_parts(group)
        self._num_parts += len(group)

    def _store_parts(self, group: Sequence[tuple[Part, Job]]) -> None:
        self._renewed_at = time.monotonic()
        try:
            self._stored_bytes += self._store.store_parts(
                self._batch_id, in_turns(group), self._client
            )
        except NoRoom as full:
            raise _no_room(full, self._stored_bytes) from None

    def _accept(self, key: str | None) -> Accepted:
        if not self._num_parts:
            raise RequestInvalid(
                "There are no lines to score; send one JSON object per line.",
                errors=[{"detail": "has no lines", "pointer": ""}],
            )
        # Bound when all of it is here: the model may have changed during the upload.
        name, fingerprint, is_pinned = self._target(self._asked_model)
        batch = Batch(
            id=self._batch_id,
            total=self._cutter.num_lines,
            num_bytes=self._cutter.num_bytes,
            num_parts=self._num_parts,
            created_at=self._created_at,
            deadline_at=self._deadline_at,
            client=self._client,
            fingerprint=fingerprint,
            model_name=name,
            is_pinned=is_pinned,
        )
        promise = idempotency(key, self._digest, self._owner) if key is not None else None
        try:
            accepted = self._store.accept(
                batch,
                promise,
                work_bytes=self._cutter.work_bytes,
                promised_bytes=self._cutter.promised_bytes,
                quota=self._quota,
            )
        except KeyReused:
            raise key_reused() from None
        except QueueFull as full:
            raise self._full(full) from None
        except NoRoom as full:
            raise self._retry.no_room(full) from None
        if accepted.is_replay:
            self._discard()
        return accepted

    def _serves(self, asked: str) -> bool:
        """Whether a line that names the model `asked` names that of the batch."""
        if asked == self._asked_model:
            return True
        if len(self._named_models) < MAX_MODEL_NAMES and asked not in self._named_models:
            try:
                self._named_models[asked] = self._target(asked).name == self._model_name
            except ModelNotFound:
                self._named_models[asked] = False
        return self._named_models.get(asked, False)

    def _keep(self) -> None:
        """Renew the stored parts while the client is slow to send the next group."""
        now = time.monotonic()
        if self._num_parts and now > self._renewed_at + self._settings.upload_ttl_s / 4:
            self._store_parts(())

    def _discard(self) -> None:
        # Without this the parts expire, only later.
        with suppress(BrokerUnavailable):
            self._store.discard_upload(self._batch_id)

    def _check_room(self) -> None:
        load = self._store.load()
        self._looked_at = time.monotonic()
        is_full = load.num_batches >= self._settings.max_queued_batches
        if is_full or load.num_bytes + self._cutter.work_bytes > self._settings.max_bulk_bytes:
            raise self._full(QueueFull(QueueDepth(load.num_batches, load.num_bytes)))
        needed = self._cutter.promised_bytes
        if needed + load.promised_bytes > load.memory.room_bytes:
            raise self._retry.no_room(NoRoom(needed, load.promised_bytes, load.memory))

    def _check_size(self) -> None:
        """Refuse a batch that could never be accepted."""
        limit_bytes = self._settings.max_bulk_bytes
        if self._cutter.work_bytes > limit_bytes:
            raise BodyTooLarge(
                f"The lines count more than {limit_bytes} bytes, each at least {LINE_WORK_BYTES}; "
                "send them in several batches.",
                limit_bytes=limit_bytes,
            )

    def _full(self, full: QueueFull) -> Overloaded:
        depth = full.depth
        return Overloaded(
            "You have reached your share of the queue: you would hold more of it than is free. "
            "Upload this batch when some of your batches have ended."
            if full.is_share
            else "Other batches fill the queue; try again after Retry-After seconds.",
            queued_bytes=depth.bytes,
            max_queued_bytes=self._settings.max_bulk_bytes,
            queued_batches=depth.jobs,
            max_queued_batches=self._settings.max_queued_batches,
            retry_after_s=self._retry.retry_after_s(depth.bytes),
        )


def _no_room(full: NoRoom, stored_bytes: int) -> Overloaded | BodyTooLarge:
    """The error for an upload that Redis has no room for: now, or ever.

    Args:
        stored_bytes: bytes of it that were stored before.
    """
    memory, needed_bytes = full.memory, stored_bytes + full.needed_bytes
    # Half of an empty Redis: a client's uploads may not take more than is left free.
    limit_bytes = memory.capacity_bytes // 2
    if 0 < limit_bytes < needed_bytes:
        return BodyTooLarge(
            f"The compressed lines take more than {limit_bytes} bytes of Redis, which is all that "
            "your uploads may take; send them in several batches.",
            limit_bytes=limit_bytes,
        )
    return Overloaded(
        "Your uploads would take more of Redis than they leave free; try again later, or send the "
        "lines in several batches."
        if full.is_share
        else "Redis has no room for this upload; try again later, or delete results.",
        needed_bytes=needed_bytes,
        redis_bytes=memory.used_bytes,
        max_redis_bytes=memory.limit_bytes,
        retry_after_s=MAX_RETRY_S,
    )
