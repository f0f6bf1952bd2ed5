"""Stores batches in Redis: receives, accepts, queues, reads, cancels and erases them.

Workers do not see received parts, which have a short TTL, until `accept` makes a batch of them in
one step. Workers end the parts through the job store.
"""

from collections.abc import Iterable, Iterator, Sequence

import redis

from contract import keys
from contract.api_keys import NO_QUOTA, Quota
from contract.batches import (
    Batch,
    Part,
    PartId,
    batch_cancelled,
    decode_part,
    decode_part_payload,
    encode_part_payload,
    failed_part_results,
)
from contract.errors import BrokerUnavailable, JobEnded, JobGone, JobNotFound
from contract.logs import get_logger
from contract.messages import Job, failure_record
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.admission.bulk_load import LIVE_KEYS, BulkLoad, ask_load
from contract.store.admission.memory import memory_of
from contract.store.admission.outcomes import (
    Idempotency,
    QuotaLeft,
    QuotaUsedUp,
    accept_or_look_again,
    raise_refusal,
)
from contract.store.admission.submitting import quota_args
from contract.store.batches.batch_queue import GROUP_PARTS, BatchQueue, find_batch, part_facts
from contract.store.batches.sealing import Accepted, BatchSealer, Sizes
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.readings import read
from contract.store.connection.scripts import register
from contract.store.jobs.absent import absent
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.store.queue.dead_letters import DeadLetters
from contract.stored_results import decoded_pieces
from contract.task_ids import BATCH, is_task_id, new_task_id
from contract.versions import NewerFormat, Unreadable

log = get_logger(__name__)

# Parts whose results are read at once; one with scores of every byte has about 200 kB.
_RESULT_PARTS = 16


class BatchStore:
    """All batches in Redis; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        jobs: JobStore,
        guard: BrokerGuard | None = None,
    ) -> None:
        """Keep batches on the Redis of `client`, where `jobs` keeps its jobs; share `guard`."""
        self._client = client
        self._settings = settings
        self._jobs = jobs
        self._guard = guard or BrokerGuard()
        self._queue = BatchQueue(client, settings)
        self._letters = DeadLetters(client, settings)
        self._sealer = BatchSealer(client, settings)
        self._look_at_quota, self._take_request = (
            register(client, name) for name in ("look_at_quota", "take_request")
        )
        self._store_parts, self._drop_upload = (
            register(client, name) for name in ("store_parts", "drop_upload")
        )
        self._cancel, self._forget, self._read_range, self._note_deleted = (
            register(client, name)
            for name in ("cancel_batch", "forget_batches", "read_range", "note_deleted")
        )

    # --- receiving ------------------------------------------------------------------------------

    def new_id(self, owner: str = "") -> str:
        """The ID for a new upload of `owner`. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return new_task_id(self._jobs.id_secret(), owner, BATCH)

    def now(self) -> float:
        """See `JobStore.now`."""
        return self._jobs.now()

    def load(self) -> BulkLoad:
        """The number and size of all batches, and the room for more. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return read(self._client, ask_load(self._settings))

    def check_quota(self, quota: Quota) -> None:
        """Check that an upload could pass now. Raises: QuotaUsedUp, BrokerUnavailable."""
        if not quota.is_limited:
            return
        _, *limits = quota_args(quota)
        with self._guard.calling():
            found = self._look_at_quota(keys=[keys.quota(quota.owner)], args=limits)
        requests, num_bytes, wait_s = map(int, found)
        if wait_s > 0:
            raise QuotaUsedUp(QuotaLeft(requests, num_bytes), wait_s)

    def take_request(self, quota: Quota) -> QuotaLeft | None:
        """Take one request for work that made no batch; what is left, None without a quota.

        Raises:
            BrokerUnavailable
        """
        if not quota.is_limited:
            return None
        _, *limits = quota_args(quota)
        with self._guard.calling():
            found = self._take_request(keys=[keys.quota(quota.owner)], args=limits)
        return QuotaLeft(*map(int, found))

    def store_parts(
        self, batch_id: str, parts: Iterable[tuple[Part, Job]], client: str = ""
    ) -> int:
        """Store further parts of an upload of `client`; return their size in Redis.

        Without parts, it renews the TTL of those of a slow upload.

        Raises:
            NoRoom: Redis has no room for them, or its client's uploads take as much as is free.
            BrokerUnavailable
        """
        num_bytes, words = 0, list[bytes | int]()
        for part, job in parts:
            payload = encode_part_payload(job)
            num_bytes += len(payload)
            words += part.first, payload, part.encode()
        with self._guard.calling():
            memory = memory_of(self._client.info("memory"), self._settings)
            verdict, *details = self._store_parts(
                keys=[
                    *(keys.batch_texts(batch_id), keys.batch_parts(batch_id)),
                    *(*keys.STORED_UPLOADS, keys.LIVE_PROMISED),
                ],
                args=[batch_id, client, self._settings.upload_ttl_s, memory.room_bytes, *words],
            )
        raise_refusal(verdict, details, needed_bytes=num_bytes, memory=memory)
        return num_bytes

    def discard_upload(self, batch_id: str) -> None:
        """Delete the parts of a failed upload. Raises: BrokerUnavailable."""
        with self._guard.calling(), self._client.pipeline() as pipe:
            pipe.unlink(keys.batch_texts(batch_id), keys.batch_parts(batch_id))
            self._drop_upload(keys=keys.STORED_UPLOADS, args=[batch_id], client=pipe)
            self._note_deleted(keys=[keys.FORGETTABLE_SINCE], client=pipe)
            pipe.execute()

    def accept(
        self,
        batch: Batch,
        idempotency: Idempotency | None = None,
        *,
        work_bytes: int,
        promised_bytes: int = 0,
        quota: Quota = NO_QUOTA,
    ) -> Accepted:
        """Make a batch of the parts that were stored under its ID, and queue them.

        If Redis fails once the batch is accepted, a worker queues the parts.

        Args:
            work_bytes: bytes of work of all parts, which the limit of batches counts.
            promised_bytes: room in Redis for the results of all parts.

        Raises:
            QueueFull: there is no room for it, or its client holds its share of the queue.
            NoRoom: Redis has no room for its results.
            QuotaUsedUp: the API key may submit no more for now.
            KeyReused: the idempotency key was used for another request.
            BrokerUnavailable: Redis does not answer, or has lost a part.
        """
        sizes = Sizes(work_bytes, promised_bytes)

        def accept() -> Accepted:
            with self._guard.calling():
                return self._sealer.seal(batch, sizes, idempotency, quota)

        accepted = accept_or_look_again(accept)
        if not accepted.is_replay:
            try:
                with self._guard.calling():
                    self._drop_upload(keys=keys.STORED_UPLOADS, args=[batch.id])
                    self._queue.publish(batch.id)
            except BrokerUnavailable:
                log.warning("batch_not_queued_at_once", batch_id=batch.id)
        return accepted

    # --- reading --------------------------------------------------------------------------------

    def read(self, batch_id: str) -> Batch:
        """The state of a batch. Raises: JobNotFound, JobGone, BrokerUnavailable."""
        with self._guard.calling():
            batch = find_batch(self._client, batch_id)
            if batch is None:
                raise self._absent(batch_id)
        return batch

    def results(
        self, batch_id: str, after: int, num_lines: int, max_bytes: int
    ) -> list[tuple[Part, bytes | None]]:
        """The parts that hold the consecutive results from line `after` on.

        Args:
            num_lines: parts that begin this many lines later are left out.
            max_bytes: the parts have at most this many compressed bytes.

        Returns:
            Each part with its lines as `pieces_of_lines` reads them; the first may begin before
            `after`. A part that alone has more than `max_bytes` comes without them, for
            `result_pieces`.

        Raises:
            BrokerUnavailable
        """
        found: list[tuple[Part, bytes | None]] = []
        num_bytes = 0
        with self._guard.calling():
            for parts in self._parts_from(batch_id, after, after + num_lines):
                fitting: list[Part] = []
                for part, size in zip(parts, self._result_sizes(batch_id, parts), strict=True):
                    if size > max_bytes and not (found or fitting):
                        return [(part, None)]
                    if not size or num_bytes + size > max_bytes:
                        break
                    fitting.append(part)
                    num_bytes += size
                firsts = [part.first for part in fitting]
                stored = self._client.hmget(keys.batch_results(batch_id), firsts) if firsts else []
                # A batch that was erased meanwhile has no results.
                found += [pair for pair in zip(fitting, stored, strict=True) if pair[1]]
                if len(fitting) < len(parts):
                    return found
        return found

    def result_pieces(self, batch_id: str, part: Part) -> Iterator[bytes]:
        """The result lines of one part as text, in pieces; memory does not grow with them.

        Raises:
            JobGone: they have expired or were erased; also between two pieces.
            BrokerUnavailable: also between two pieces.
        """
        name = keys.batch_results(batch_id)
        with self._guard.calling():
            size = int(self._client.hstrlen(name, str(part.first)))

        def read_range(offset: int, length: int) -> bytes:
            with self._guard.calling():
                args = [part.first, offset, offset + length - 1]
                found = bytes(self._read_range(keys=[name], args=args))
                if not found and (offset < size or not size):
                    raise self._absent(batch_id)
            return found

        # Redis copies the whole value for each range.
        return decoded_pieces(read_range, range_bytes=512 * 1024)

    def _result_sizes(self, batch_id: str, parts: Sequence[Part]) -> list[int]:
        """The compressed size of the results of each part; 0 if there are none yet."""
        with self._client.pipeline(transaction=False) as pipe:
            for part in parts:
                pipe.hstrlen(keys.batch_results(batch_id), str(part.first))
            return list(pipe.execute())

    def _parts_from(self, batch_id: str, after: int, before: int) -> Iterator[list[Part]]:
        """The parts with lines from `after` to `before - 1`, in groups."""
        name, offset = keys.batch_parts(batch_id), 0
        holding = self._client.zrange(name, after, 0, byscore=True, desc=True, offset=0, num=1)
        first = decode_part(holding[0]).first if holding else 0
        while members := self._client.zrange(
            name, first, f"({before}", byscore=True, offset=offset, num=_RESULT_PARTS
        ):
            yield [decode_part(member) for member in members]
            offset += len(members)

    # --- ending ---------------------------------------------------------------------------------

    def cancel(self, batch_id: str) -> Batch:
        """End every part that has not ended; existing results stay.

        Raises:
            JobEnded: the batch has already ended; JobNotFound, JobGone, BrokerUnavailable.
        """
        before = self.read(batch_id)
        if before.is_final:
            raise JobEnded(
                f"The batch is {before.status}; only a batch that has not ended can be cancelled."
            )
        now = self.now()
        with self._guard.calling():
            names = [keys.batch(batch_id), keys.CANCELLING]
            self._cancel(keys=names, args=[now, batch_id])
            # A part that is not queued has no record yet, so it could not end.
            self._queue.publish(batch_id)
            for parts in self._parts_from(batch_id, 0, before.total):
                self._cancel_parts(before, parts)
        return self.read(batch_id)

    def _cancel_parts(self, batch: Batch, parts: list[Part]) -> None:
        stored = self._client.hmget(keys.batch_texts(batch.id), [part.first for part in parts])
        endings = []
        # A part without text has ended.
        for part, payload in zip(parts, stored, strict=True):
            if payload is not None:
                endings.append(_cancelled_ending(batch, part, payload))
        if endings:
            self._jobs.conclude(endings)

    def erase(self, batch_id: str) -> None:
        """Delete the texts and results of a batch in any state; repeating it is harmless.

        Raises:
            JobNotFound, BrokerUnavailable.
        """
        with self._guard.calling():
            if not self._is_id(batch_id):
                raise self._absent(batch_id)
            with self._client.pipeline() as pipe:
                args = [self._settings.result_ttl_s, batch_id]
                self._forget(keys=LIVE_KEYS, args=args, client=pipe)
                pipe.unlink(
                    keys.batch(batch_id),
                    keys.batch_texts(batch_id),
                    keys.batch_results(batch_id),
                )
                pipe.publish(keys.batch(batch_id), b"").execute()
            # Workers drop the queued messages, because the records that they name are gone.
            for members in self._all_parts(batch_id):
                firsts = (decode_part(member).first for member in members)
                self._client.unlink(*(keys.record(str(PartId(batch_id, n))) for n in firsts))
            self._client.unlink(keys.batch_parts(batch_id))
            self._letters.drop_of(batch_id)

    def _all_parts(self, batch_id: str) -> Iterator[list[bytes]]:
        first = 0
        while members := self._client.zrange(
            keys.batch_parts(batch_id), first, first + GROUP_PARTS - 1
        ):
            yield members
            first += len(members)

    # --- IDs ------------------------------------------------------------------------------------

    def _is_id(self, batch_id: str) -> bool:
        return is_task_id(self._jobs.id_secret(), batch_id, BATCH)

    def _absent(self, batch_id: str) -> JobGone | JobNotFound:
        gone = "The results of this batch have expired or were erased; upload it again."
        return absent(self._jobs.id_secret(), batch_id, BATCH, gone)


def _cancelled_ending(batch: Batch, part: Part, payload: bytes) -> Ending:
    error = batch_cancelled()
    part_id = PartId(batch.id, part.first)
    try:
        requests = decode_part_payload(payload).requests
    except (Unreadable, NewerFormat):
        # Nothing is known of its lines, not even their custom_id.
        requests = [{}] * part.num_lines
    return Ending(
        str(part_id),
        failure_record(str(part_id), error, part_facts(batch, part), CLOCK.now()),
        "jobs_cancelled",
        failed_part_results(part_id, requests, error, part.num_bytes),
    )
