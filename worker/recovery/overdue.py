"""Ends jobs that no message names any more, once their deadlines have passed.

A job whose message was lost or cannot be read is never fetched. Without this it would wait, and
count as live, for ever. A waiting job is ended here too, if its deadline has passed. A job whose
record cannot be read ends at once: nobody knows its deadline.

The parts of a cancelled batch end here if its web server did not end all of them.
"""

from collections.abc import Callable, Iterator, Sequence

import redis

from contract import keys
from contract.batches import PartId, batch_cancelled, decode_part_payload, part_id
from contract.errors import ServiceError
from contract.logs import get_logger
from contract.messages import Job, Record, decode_record
from contract.service_clock import CLOCK
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.versions import NewerFormat, Unreadable
from worker.scoring.outcomes import failed_ending, job_expired, lost_ending, unreadable_ending

log = get_logger(__name__)

# A worker that fetches the job ends it at once; this is for jobs that nobody fetches.
GRACE_S = 10.0
# Jobs, and batches, that a step looks at: Redis reads them in less than a millisecond.
_GROUP = 200


class Overdue:
    """Looks at all live jobs and batches, some at each step; Redis errors reach the caller."""

    def __init__(
        self, client: redis.Redis, store: JobStore, clock: Callable[[], float] = CLOCK.now
    ) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._next_job = self._next_batch = 0

    def end_some(self) -> None:
        """Look at the next jobs and the next batches, and end what is overdue and in no hands."""
        self._next_job, found = self._client.hscan(keys.LIVE_JOBS, self._next_job, count=_GROUP)
        self._end([task_id.decode() for task_id in found])
        self._next_batch, found = self._client.hscan(
            keys.LIVE_BATCHES, self._next_batch, count=_GROUP
        )
        for batch_id, error in self._overdue_batches([name.decode() for name in found]):
            # The text of a part is deleted when it ends.
            _, texts = self._client.hscan(keys.batch_texts(batch_id), count=_GROUP)
            self._end([str(PartId(batch_id, int(first))) for first in texts], error)

    def _overdue_batches(
        self, batch_ids: Sequence[str]
    ) -> Iterator[tuple[str, ServiceError | None]]:
        """Yield the batches that should have ended; all are read in one round trip.

        With each comes the error of its parts; None if that depends on the part.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hmget(keys.batch(batch_id), "deadline_at", "cancelling_at")
            found = pipe.execute()
        for batch_id, (deadline_at, cancelling_at) in zip(batch_ids, found, strict=True):
            if cancelling_at is not None and self._is_over(float(cancelling_at)):
                yield batch_id, batch_cancelled()
            elif deadline_at is not None and self._is_over(float(deadline_at)):
                yield batch_id, None

    def _end(self, task_ids: Sequence[str], error: ServiceError | None = None) -> None:
        """End those jobs that are overdue, with `error` those that are not, too."""
        records = self._client.mget([keys.record(each) for each in task_ids]) if task_ids else []
        found = dict(zip(task_ids, records, strict=True))
        endings = [
            ending
            for task_id, raw in found.items()
            if (ending := self._ending(task_id, raw, error)) is not None
        ]
        held = self._held([each.task_id for each in endings])
        chosen = [each for each in endings if each.task_id not in held]
        for each in chosen:
            self._keep_if_broken(each.task_id, found[each.task_id])
        if chosen:
            self._store.conclude(chosen)
            event = "overdue_jobs_ended" if error is None else "cancelled_parts_ended"
            log.warning(event, jobs=len(chosen))

    def _keep_if_broken(self, task_id: str, raw: bytes | None) -> None:
        """Keep a dead letter of a job whose record cannot be read, as at its fetch."""
        try:
            decode_record(task_id, raw or b"{}")
        except NewerFormat:
            return
        except Unreadable as error:
            if raw is not None:
                payload = self._payload(task_id) or b""
                self._store.set_aside(
                    "record", error.reason, task_id=task_id, num_bytes=len(raw), raw=payload
                )

    def _ending(self, task_id: str, raw: bytes | None, error: ServiceError | None) -> Ending | None:
        """The end of a job if it is overdue; of a job without a record, the end of its counts."""
        if raw is None:
            # A part gets its record when it is queued.
            return None if part_id(task_id) else Ending(task_id)
        try:
            record = decode_record(task_id, raw)
        except Unreadable:
            # The worker that fetches it would end it so, too.
            return unreadable_ending(task_id, self._store.facts(task_id))
        except NewerFormat:
            return None
        if record.is_final:
            return None
        if error is None:
            if not self._is_over(float(record.job.get("deadline_at", "inf"))):
                return None
            error = job_expired()
        job = self._part(record)
        if job is not None:
            return failed_ending(task_id, job, error)
        return lost_ending(task_id, self._store.facts(task_id), error)

    def _part(self, record: Record) -> Job | None:
        """The part of a batch, with the custom_ids of its lines; None if it is not a part."""
        payload = self._payload(record.task_id) if part_id(record.task_id) else None
        try:
            return decode_part_payload(payload) if payload else None
        except (Unreadable, NewerFormat):
            return None

    def _payload(self, task_id: str) -> bytes | None:
        part = part_id(task_id)
        if part is None:
            found = self._client.get(keys.payload(task_id))
        else:
            found = self._client.hget(keys.batch_texts(part.batch_id), str(part.first))
        return None if found is None else bytes(found)

    def _held(self, task_ids: Sequence[str]) -> set[str]:
        """The jobs that a worker has in hand; it may have begun them before their deadline."""
        if not task_ids:
            return set()
        workers = [name.decode() for name in self._client.smembers(keys.WORKERS)]
        with self._client.pipeline(transaction=False) as pipe:
            for worker in workers:
                pipe.hmget(keys.unacked(worker), task_ids)
            found = pipe.execute() if workers else []
        return {
            task_id
            for of_worker in found
            for task_id, message in zip(task_ids, of_worker, strict=True)
            if message is not None
        }

    def _is_over(self, deadline_at: float) -> bool:
        return deadline_at + GRACE_S < self._clock()
