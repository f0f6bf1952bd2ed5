"""Stores jobs in Redis: submits, reads, opens, ends, cancels and erases them, each atomically."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any

import redis

from contract import keys
from contract.batches import decode_part_payload, part_id
from contract.errors import JobCancelled, JobEnded, JobGone, JobNotFound
from contract.logs import get_logger
from contract.messages import (
    Job,
    Record,
    decode_payload,
    decode_record,
    encode_payload,
    failure_record,
    queued_record,
    task_message,
)
from contract.settings import Settings
from contract.store.admission import (
    IDEMPOTENCY_TTL_S,
    Idempotency,
    KeyReused,
    QueueDepth,
    QueueFull,
    Receipt,
)
from contract.store.broker_guard import BrokerGuard
from contract.store.endings import LUA, Ending, EndingsWriter
from contract.task_ids import is_task_id, new_task_id
from contract.worker_status import NotAWorkerStatus, WorkerStatus, decode_status

log = get_logger(__name__)

# `/readyz` tells that a model has drifted for this long, unless a worker becomes ready before.
_DRIFT_TOLD_S = 3600


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer of `open_jobs` for one job.

    It has neither a payload nor lost facts if the job has ended or was erased.
    """

    task_id: str
    job: Job | None = None
    lost_facts: dict[str, Any] | None = None
    """The facts in the record of a job that has not ended but whose payload is gone."""


class JobStore:
    """All jobs in Redis; safe to share between threads."""

    def __init__(
        self, client: redis.Redis, settings: Settings, guard: BrokerGuard | None = None
    ) -> None:
        """Keep jobs on the Redis of `client`; stores of one process share one `guard`."""
        self._client = client
        self._settings = settings
        self._guard = guard or BrokerGuard()
        self._secret: bytes | None = None
        self._endings = EndingsWriter(client, settings.result_ttl_s)
        self._submit, self._open, self._erase = (
            client.register_script((LUA / f"{name}.lua").read_text())
            for name in ("submit", "open", "erase")
        )

    # --- the web tier's side ----------------------------------------------------------------

    def submit(self, job: Job, idempotency: Idempotency | None = None) -> Receipt:
        """Accept `job` and queue it.

        Raises:
            QueueFull: there is no room for its bytes or for one more job.
            KeyReused: the idempotency key was used for another request.
            BrokerUnavailable: the job was not accepted, or the answer did not arrive in time.
        """
        with self._guard.calling():
            task_id = new_task_id(self.id_secret())
            limits = self._settings
            ttl_s = int(max(job.deadline_at - time.time(), 0)) + limits.result_ttl_s
            answer = self._submit(
                keys=[
                    keys.record(task_id),
                    keys.payload(task_id),
                    keys.queue_list(job.priority),
                    keys.LIVE_JOBS,
                    keys.LIVE_BYTES,
                    keys.idempotency(idempotency.key_digest) if idempotency else "",
                ],
                args=[
                    queued_record(task_id, job.facts()),
                    encode_payload(job),
                    task_message(task_id, job.num_bytes, job.priority),
                    task_id,
                    job.num_bytes,
                    ttl_s,
                    limits.max_queued_jobs,
                    limits.max_queued_bytes,
                    f"{task_id}:{idempotency.request_digest}" if idempotency else "",
                    IDEMPOTENCY_TTL_S,
                ],
            )
        verdict = answer[0]
        if verdict == b"replay":
            earlier, _, digest = answer[1].decode().partition(":")
            if idempotency is None or digest != idempotency.request_digest:
                raise KeyReused
            return Receipt(earlier, self.depth(), is_replay=True)
        depth = QueueDepth(int(answer[1]), int(answer[2]))
        if verdict == b"full":
            raise QueueFull(depth)
        return Receipt(task_id, depth)

    def read(self, task_id: str) -> Record:
        """The record of a job.

        Raises:
            JobNotFound, JobGone, BrokerUnavailable.
        """
        with self._guard.calling():
            # A part of a batch can only be read through its batch.
            raw = None if part_id(task_id) else self._client.get(keys.record(task_id))
            if raw is None:
                raise self._absent(task_id)
        return decode_record(task_id, raw)

    def cancel(self, task_id: str) -> Record:
        """End a job that has not ended: it is not scored, or its score is dropped.

        Raises:
            JobEnded: it has already ended; JobNotFound, JobGone, BrokerUnavailable.
        """
        before = self.read(task_id)
        error = JobCancelled("The job was cancelled before it was scored.")
        now = time.time()
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
            existed = self._erase(
                keys=[
                    keys.record(task_id),
                    keys.payload(task_id),
                    keys.LIVE_JOBS,
                    keys.LIVE_BYTES,
                ],
                args=[task_id],
            )
            if not existed and not is_task_id(self.id_secret(), task_id):
                raise self._absent(task_id)

    def depth(self) -> QueueDepth:
        """The number and size of accepted jobs that have not ended. Raises: BrokerUnavailable."""
        with self._guard.calling(), self._client.pipeline(transaction=False) as pipe:
            jobs, live_bytes = pipe.hlen(keys.LIVE_JOBS).get(keys.LIVE_BYTES).execute()
        return QueueDepth(int(jobs), int(live_bytes or 0))

    def worker_statuses(self) -> list[WorkerStatus]:
        """The status of every worker that holds a lease, by name. Raises: BrokerUnavailable."""
        with self._guard.calling():
            names = sorted(name.decode() for name in self._client.smembers(keys.WORKERS))
            found = self._client.mget([keys.lease(name) for name in names]) if names else []
        statuses = (_status(name, raw) for name, raw in zip(names, found, strict=True) if raw)
        return [status for status in statuses if status is not None]

    def has_model_drifted(self) -> bool:
        """Whether a worker stopped because of its model and no worker became ready since.

        Raises: BrokerUnavailable.
        """
        with self._guard.calling():
            return bool(self._client.exists(keys.MODEL_DRIFTED))

    def totals(self) -> dict[str, int]:
        """Counters since the data folder was made. Raises: BrokerUnavailable."""
        with self._guard.calling():
            found = self._client.hgetall(keys.TOTALS)
        return {name.decode(): int(count) for name, count in found.items()}

    # --- the worker's side: Redis errors reach Celery's consumer, which then reconnects ------

    def open_jobs(self, task_ids: Sequence[str]) -> list[Opened]:
        """Mark jobs STARTED and fetch their payloads; ended and erased jobs have none."""
        if not task_ids:
            return []
        names, fields = [], []
        for task_id in task_ids:
            part = part_id(task_id)
            place = keys.batch_texts(part.batch_id) if part else keys.payload(task_id)
            names += [keys.record(task_id), place]
            fields.append(part.first if part else "")
        answers = self._open(keys=names, args=fields)
        return [
            _opened(task_id, *answer) for task_id, answer in zip(task_ids, answers, strict=True)
        ]

    def conclude(self, endings: Sequence[Ending], worker: str | None = None) -> list[str]:
        """Write final records (the first one wins) and acknowledge `worker`'s messages.

        This ends the worker's micro-batch: it has no suspects any more.

        Returns:
            The state of each job now, '' if it was erased or has expired.
        """
        return self._endings.write(endings, worker)

    def note_aboard(self, task_ids: Iterable[str], worker: str) -> None:
        """Note the jobs of the micro-batch that `worker` begins: the suspects if it dies."""
        with self._client.pipeline() as pipe:
            pipe.delete(keys.aboard(worker)).sadd(keys.aboard(worker), *task_ids).execute()

    def note_model_drifted(self, worker: str) -> None:
        """Tell that `worker` stopped because its model did not give the score that it must."""
        self._client.set(keys.MODEL_DRIFTED, worker, ex=_DRIFT_TOLD_S)

    def forget_model_drifted(self) -> None:
        """Take back what `note_model_drifted` told: a worker is ready."""
        self._client.delete(keys.MODEL_DRIFTED)

    def are_wanted(self, task_ids: Sequence[str]) -> list[bool]:
        """Whether each job has neither ended nor been erased."""
        raws = self._client.mget([keys.record(task_id) for task_id in task_ids]) if task_ids else []
        return [
            raw is not None and not decode_record(task_id, raw).is_final
            for task_id, raw in zip(task_ids, raws, strict=True)
        ]

    # --- task IDs ---------------------------------------------------------------------------

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
        if is_task_id(self.id_secret(), task_id):
            return JobGone("The result of this task ID has expired or was erased.")
        return JobNotFound("This task ID was never issued; check it for typing errors.")


def _status(worker: str, raw: bytes) -> WorkerStatus | None:
    """The status of `worker`; None if it cannot be read, so that the others still show."""
    try:
        return decode_status(raw)
    except NotAWorkerStatus as error:
        log.warning("worker_status_unreadable", worker=worker, reason=str(error))
        return None


def _opened(task_id: str, verdict: bytes, found: bytes = b"") -> Opened:
    if verdict == b"open":
        decode = decode_part_payload if part_id(task_id) else decode_payload
        return Opened(task_id, job=decode(found))
    if verdict == b"lost":
        return Opened(task_id, lost_facts=decode_record(task_id, found).job)
    return Opened(task_id)
