"""Stores jobs in Redis: submits, reads, opens, ends, cancels and erases them, each atomically."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from secrets import token_bytes
from typing import Any

import orjson
import redis

from contract import keys
from contract.api_keys import NO_QUOTA, Quota
from contract.batches import part_id
from contract.errors import JobEnded, JobGone, JobNotFound, JobUnreadable
from contract.logs import get_logger
from contract.messages import Job, Record, decode_record, failure_record, job_cancelled
from contract.queue_messages import Origin, queue_of, rebound_message, task_message
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.admission.outcomes import (
    Idempotency,
    QueueDepth,
    Receipt,
    accept_or_look_again,
)
from contract.store.admission.submitting import JobSubmitter
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.readings import Reading, note_time, read, read_together
from contract.store.connection.refusals import NotStored, refusal_reason
from contract.store.connection.script_runner import ScriptRunner
from contract.store.connection.scripts import register
from contract.store.jobs.absent import absent
from contract.store.jobs.counts import ask_depth
from contract.store.jobs.endings import Ending, EndingsWriter
from contract.store.jobs.opening import JobOpener, Opened
from contract.store.queue.dead_letters import DeadLetters, Kind
from contract.store.queue.leases import ask_statuses
from contract.store.queue.model_registry import ModelRegistry, ask_model_drifted
from contract.store.queue.parked_jobs import ParkedJobs
from contract.stored_results import decoded_pieces
from contract.task_ids import TASK, is_owned_by, is_task_id, new_task_id
from contract.versions import NewerFormat, Unreadable
from contract.worker_status import WorkerStatus

log = get_logger(__name__)

# `/readyz` says that a model has drifted for this long, unless a worker becomes ready before.
_DRIFT_NOTE_S = 3600
# A worker that starts more often than this, each time within the time below, restarts for a fault.
_MAX_STARTS, _BETWEEN_STARTS_S = 3, 3600


class JobStore:
    """All jobs in Redis; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        guard: BrokerGuard | None = None,
        scripts: ScriptRunner | None = None,
    ) -> None:
        """Keep jobs on the Redis of `client`; stores of one process share one `guard`."""
        self._client = client
        self._settings = settings
        self._guard = guard or BrokerGuard()
        self._secret: bytes | None = None
        self._scripts = scripts or ScriptRunner(client)
        self._endings = EndingsWriter(client, self._scripts, settings.result_ttl_s)
        self._opener = JobOpener(client, self._scripts)
        self._letters = DeadLetters(client, settings)
        self._parked = ParkedJobs(client)
        self._submitter = JobSubmitter(client, self._scripts, settings)
        self.models = ModelRegistry(client)
        self._erase, self._note_aboard, self._requeue = (
            register(client, name) for name in ("erase", "note_aboard", "requeue")
        )

    # --- the web tier's side ----------------------------------------------------------------

    def new_id(self, owner: str = "") -> str:
        """The ID for a new job of `owner`. Raises: BrokerUnavailable."""
        # Once the secret is known, Redis is not asked.
        with self._guard.calling() if self._secret is None else nullcontext():
            return new_task_id(self.id_secret(), owner)

    def now(self) -> float:
        """Unix time by the clock of Redis. Raises: BrokerUnavailable if it has never answered."""
        if not CLOCK.is_known:
            with self._guard.calling():
                CLOCK.ask(self._client)
        return CLOCK.now()

    def submit(
        self,
        job: Job,
        idempotency: Idempotency | None = None,
        quota: Quota = NO_QUOTA,
        task_id: str | None = None,
    ) -> Receipt:
        """Accept `job` and queue it.

        Args:
            task_id: a fresh one of `new_id`, for a caller that has to know it before.

        Raises:
            QueueFull: there is no room for it, or its client holds its share of the queue.
            NoRoom: Redis has no room for its result.
            QuotaUsedUp: the API key may submit no more for now.
            KeyReused: the idempotency key was used for another request.
            BrokerUnavailable: the job was not accepted, or the answer did not arrive in time.
        """

        def accept() -> Receipt:
            with self._guard.calling():
                own_id = task_id or new_task_id(self.id_secret(), job.owner)
                return self._submitter.submit(own_id, job, idempotency, quota)

        receipt = accept_or_look_again(accept)
        return replace(receipt, depth=self.depth()) if receipt.is_replay else receipt

    def read(self, task_id: str) -> Record:
        """The record of a job.

        Raises:
            JobUnreadable: its record is broken, or a newer release wrote it.
            JobNotFound, JobGone, BrokerUnavailable.
        """
        with self._guard.calling():
            # A part of a batch can only be read through its batch.
            raw = None if part_id(task_id) else self._client.get(keys.record(task_id))
            if raw is None:
                raise self._absent(task_id)
        try:
            return decode_record(task_id, raw)
        except Unreadable as error:
            log.error("record_unreadable", task_id=task_id, reason=error.reason)
            raise JobUnreadable("What is stored of the job cannot be read.") from None
        except NewerFormat as newer:
            raise JobUnreadable(
                f"A newer release stored this job (format {newer.major}); ask its web server."
            ) from None

    def result_pieces(self, record: Record) -> Iterator[bytes]:
        """The JSON of a result that is stored apart, in pieces; memory does not grow with it.

        Raises:
            JobGone: it has expired or was erased; also between two pieces.
            BrokerUnavailable: also between two pieces.
        """
        assert record.apart is not None
        pieces = self._pieces(record.task_id, record.apart.num_bytes)
        # The first piece is read at once, so that a missing result is an answer of its own.
        return itertools.chain([next(pieces)], pieces)

    def with_result(self, record: Record) -> Record:
        """The record with its result, wherever that is stored; all of it is held in memory.

        Raises:
            as `result_pieces`
        """
        if record.apart is None:
            return record
        text = b"".join(self.result_pieces(record))
        return replace(record, result=orjson.loads(text), apart=None)

    def _pieces(self, task_id: str, num_bytes: int) -> Iterator[bytes]:
        def read_range(offset: int, length: int) -> bytes:
            with self._guard.calling():
                name, end = keys.result(task_id), offset + length - 1
                return bytes(self._client.getrange(name, offset, end))

        num_read = 0
        for piece in decoded_pieces(read_range):
            num_read += len(piece)
            yield piece
        if num_read < num_bytes:
            with self._guard.calling():
                raise self._absent(task_id)

    def cancel(self, task_id: str) -> Record:
        """End a job that has not ended: it is not scored, or its score is dropped.

        Raises:
            JobEnded: it has already ended; JobNotFound, JobGone, BrokerUnavailable.
        """
        before = self.read(task_id)
        error = job_cancelled()
        now = self.now()
        record = failure_record(task_id, error, before.job, now)
        if not before.is_final:
            with self._guard.calling():
                self.conclude([Ending(task_id, record, "jobs_cancelled")])
        after = self.read(task_id)
        if before.is_final or (after.error or {}).get("code") != error.code:
            raise JobEnded(
                f"The job is {after.state}; only a waiting or running job can be cancelled."
            )
        return after

    def erase(self, task_id: str) -> None:
        """Delete the texts and the result of a job in any state; repeating it is harmless.

        Raises:
            JobNotFound, BrokerUnavailable.
        """
        with self._guard.calling():
            if part_id(task_id):
                raise self._absent(task_id)
            existed = self._delete(task_id)
            self._letters.drop_of(task_id)
            if not existed and not is_task_id(self.id_secret(), task_id):
                raise self._absent(task_id)

    def _delete(self, task_id: str) -> bool:
        """Delete all of a job and take it off the counts; return whether there was a record."""
        of_job = keys.record(task_id), keys.payload(task_id), keys.result(task_id)
        names = [*of_job, *keys.LIVE, keys.FORGETTABLE_SINCE, keys.STORED]
        return bool(self._erase(keys=names, args=[task_id, self._settings.result_ttl_s]))

    def depth(self) -> QueueDepth:
        """The number and size of accepted jobs that have not ended. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return read(self._client, ask_depth())

    def check_writable(self) -> None:
        """Check that Redis takes writes. Raises: BrokerUnavailable, with the reason."""
        with self._guard.calling():
            self._client.delete(keys.ABSENT)

    def worker_statuses(self) -> list[WorkerStatus]:
        """The status of every worker that holds a lease, by name. Raises: BrokerUnavailable.

        A web server asks for it once a second. So this also looks at the key that signs IDs.
        """
        with self._guard.calling():
            statuses, _, secret = read_together(
                self._client, ask_statuses(), note_time(), _keep_secret(self._secret)
            )
        self._secret = secret
        return list(statuses)

    def current_models(self) -> dict[str, str]:
        """The current fingerprint of each model's name. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return self.models.current()

    def has_model_drifted(self) -> bool:
        """Whether a worker stopped because of its model and no worker became ready since.

        Raises: BrokerUnavailable.
        """
        with self._guard.calling():
            return read(self._client, ask_model_drifted())

    # --- the worker's side: Redis errors reach Celery's consumer, which then reconnects ------

    @contextmanager
    def _refusable(self) -> Iterator[None]:
        """Raise `NotStored` where Redis answers but does not take a write."""
        try:
            yield
        except redis.RedisError as error:
            reason = refusal_reason(error, self._answers)
            if reason is None:
                raise
            raise NotStored(reason) from error

    def _answers(self) -> bool:
        """Whether Redis answers a PING on a new connection."""
        self._scripts.drop_idle()
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def open_jobs(
        self, task_ids: Sequence[str], worker: str | None = None, fingerprint: str = ""
    ) -> list[Opened]:
        """Mark jobs STARTED and fetch their payloads; ended and erased jobs have none.

        The jobs are the suspects if `worker` dies now. A job that is bound to no model is bound to
        that of `fingerprint`; one that is bound to another model is not opened.

        Raises:
            NotStored: Redis does not take the marks; the jobs can be opened later.
        """
        with self._refusable():
            return self._opener.open_jobs(task_ids, worker, fingerprint)

    def keep_opened(self, answers: dict[str, Sequence[bytes]]) -> None:
        """Keep what a worker's last fetch opened, for the `open_jobs` that follows it.

        Args:
            answers: by task ID what `opening.lua` returned; empty if the fetch opened nothing.
        """
        self._opener.keep_opened(answers)

    def facts(self, task_id: str) -> dict[str, Any]:
        """What is known of a job without its payload, in the form of `Job.facts`."""
        return self._opener.facts(task_id)

    def set_aside(
        self, kind: Kind, reason: str, *, task_id: str = "", num_bytes: int, raw: bytes = b""
    ) -> None:
        """Keep a dead letter, see `DeadLetters.add`, and log it; a full Redis keeps none."""
        try:
            self._letters.add(kind, reason, task_id=task_id, num_bytes=num_bytes, raw=raw)
        except redis.ResponseError:
            # The one that cannot be read must not hold up its neighbours.
            log.error("dead_letter_not_kept", kind=kind, task_id=task_id)
        log.error("set_aside", kind=kind, reason=reason, task_id=task_id, bytes=num_bytes)

    def park(self, task_id: str, major: int, worker: str) -> None:
        """Have the message of a job wait for a worker that can read format `major`."""
        self._parked.park(task_id, major, worker)
        log.warning("job_parked", task_id=task_id, format=major)

    def pass_on(self, task_id: str, fingerprint: str, worker: str) -> None:
        """Put a message that `worker` fetched into the queue of the model that its job has."""
        unacked = keys.unacked(worker)
        stored = self._client.hget(unacked, task_id)
        if stored is None:
            return
        message = rebound_message(orjson.dumps(orjson.loads(stored)[0]), fingerprint)
        queue = fingerprint, queue_of(message)[1]
        self._requeue(
            keys=[unacked, keys.unacked_index(worker), keys.turns(*queue), keys.waiting(*queue)],
            args=[task_id, message],
        )
        log.warning("job_passed_on", task_id=task_id, fingerprint=fingerprint)

    def queue_again(self, task_id: str, tag: str, worker: str) -> bool:
        """Queue a new message of a job in the place of one that cannot be read.

        Args:
            tag: the delivery tag under which `worker` fetched the unreadable message.

        Returns:
            Whether nothing is left to do; False if it has ended or its record cannot be read.
        """
        part = part_id(task_id)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.get(keys.record(task_id))
            pipe.hget(keys.batch(part.batch_id) if part else "", "fingerprint")
            raw, of_batch = pipe.execute()
        try:
            record = decode_record(task_id, raw or b"")
        except Unreadable:
            return False
        except NewerFormat:
            # Workers of that release look after it.
            self.drop_message(tag, worker)
            return True
        if record.is_final:
            return False
        facts = record.job
        fingerprint = of_batch.decode() if of_batch else facts.get("fingerprint", keys.UNBOUND)
        queue = fingerprint, facts.get("priority", keys.INTERACTIVE)
        origin = Origin(submitted_at=facts.get("submitted_at", 0.0))
        message = task_message(task_id, facts.get("num_bytes", 0), *queue[::-1], origin)
        self._requeue(
            keys=[
                *(keys.unacked(worker), keys.unacked_index(worker)),
                *(keys.turns(*queue), keys.waiting(*queue)),
            ],
            args=[tag, message],
        )
        log.warning("job_queued_again", task_id=task_id)
        return True

    def conclude(self, endings: Sequence[Ending], worker: str | None = None) -> list[str]:
        """Write final records (the first one wins) and acknowledge `worker`'s messages.

        This ends the worker's micro-batch: it has no suspects any more.

        Returns:
            The state of each job now, '' if it was erased or has expired.

        Raises:
            NotStored: Redis does not take those of `worker`; it may have taken some, and
                repeating is harmless.
        """
        with self._refusable() if worker else nullcontext():
            return self._endings.write(endings, worker)

    def give_up(self, task_id: str, worker: str) -> None:
        """Delete a job that `worker` can neither open nor end, because Redis refuses that.

        Its place in the queue is free again, and its waiters are woken. A part stays in the counts
        of its batch.
        """
        if part_id(task_id) is None:
            self._delete(task_id)
        self.drop_message(task_id, worker)

    def drop_message(self, tag: str, worker: str) -> None:
        """Drop a message that `worker` fetched, whatever became of its job."""
        with self._client.pipeline() as pipe:
            pipe.hdel(keys.unacked(worker), tag)
            pipe.zrem(keys.unacked_index(worker), tag).execute()

    def note_aboard(self, task_ids: Iterable[str], worker: str) -> None:
        """Note the jobs of the micro-batch that `worker` begins: the suspects if it dies."""
        try:
            self._note_aboard(keys=[keys.aboard(worker)], args=list(task_ids))
        except redis.ResponseError as error:
            # They are scored all the same: a death meanwhile is counted against none of them.
            log.warning("suspects_not_noted", worker=worker, error=type(error).__name__)

    def note_started(self, worker: str) -> None:
        """Count a start of `worker`, in the totals if it starts again and again."""
        try:
            with self._client.pipeline() as pipe:
                pipe.incr(keys.starts(worker)).expire(keys.starts(worker), _BETWEEN_STARTS_S)
                num_starts, _ = pipe.execute()
            if num_starts > _MAX_STARTS:
                self._client.hincrby(keys.TOTALS, "worker_restarts", 1)
        except redis.ResponseError as error:
            # A full Redis takes the lease and the results of this worker all the same.
            log.warning("start_not_counted", worker=worker, error=type(error).__name__)

    def note_model_drifted(self, worker: str) -> None:
        """Note that `worker` stopped because of a wrong score, until another one is ready."""
        self._client.set(keys.MODEL_DRIFTED, worker, ex=_DRIFT_NOTE_S)

    def has_passed(self, moment: float) -> bool:
        """Whether a moment in Unix seconds has passed by the clock of Redis."""
        return CLOCK.has_passed(moment, self._client)

    def are_wanted(self, task_ids: Sequence[str]) -> list[bool]:
        """Whether each job has neither ended nor been erased."""
        return self._opener.are_wanted(task_ids)

    # --- task IDs ---------------------------------------------------------------------------

    def is_owned_by(self, task_id: str, owner: str) -> bool:
        """Whether the ID of a task or batch was issued to `owner`. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return is_owned_by(self.id_secret(), task_id, owner)

    def id_secret(self) -> bytes:
        """The key that signs task IDs; all processes share it through Redis."""
        if self._secret is None:
            self._secret = self._client.get(keys.ID_SECRET)
        if self._secret is None:
            # Only once: a Redis that is full refuses it, although the key exists.
            self._client.set(keys.ID_SECRET, token_bytes(32), nx=True)
            self._secret = self._client.get(keys.ID_SECRET)
        assert self._secret is not None
        return self._secret

    def _absent(self, task_id: str) -> JobGone | JobNotFound:
        gone = "The result of this task ID has expired or was erased; send the text again."
        return absent(self.id_secret(), task_id, TASK, gone)


def _keep_secret(known: bytes | None) -> Reading[bytes | None]:
    """The key that signs task IDs, as it is stored; one that Redis has lost is stored again.

    A web server that started later would make another one, and know no ID of the earlier ones.
    """
    (stored,) = yield [("GET", keys.ID_SECRET)]
    if stored is None and known is not None:
        with suppress(redis.ResponseError):
            _, stored = yield [("SET", keys.ID_SECRET, known, "NX"), ("GET", keys.ID_SECRET)]
    return known if stored is None else stored
