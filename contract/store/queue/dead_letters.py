"""Keeps dead letters in Redis: what could not be read, with reason and time, until it expires.

The number of letters and the size of each are bounded. The bytes are kept for a requeue only, and
are not shown. Redis errors reach the caller.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import redis

from contract import keys
from contract.batches import part_id
from contract.errors import JobUnreadable
from contract.messages import decode_payload, decode_record, encode_payload, queued_record
from contract.queue_messages import origin_of, task_message
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.connection.readings import Reading, read
from contract.store.connection.scripts import register
from contract.stored_results import promised_bytes
from contract.versions import NewerFormat, Unreadable

Kind = Literal["message", "payload", "record", "lease"]
KINDS: tuple[Kind, ...] = ("message", "payload", "record", "lease")
# All letters together hold 64 MiB at most.
MAX_LETTERS = 256
MAX_RAW_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be read, without its bytes."""

    id: str
    kind: str
    reason: str
    """A code, such as `not_json`."""
    task_id: str
    """The job that it belongs to; '' if unknown."""
    num_bytes: int

    @property
    def at(self) -> float:
        """When it was set aside: Unix time, seconds, of the clock of Redis."""
        return int(self.id.partition("-")[0]) / 1000


class NotRequeued(Exception):
    """A dead letter cannot be requeued; the message says why and what to do."""


class DeadLetters:
    """All dead letters, oldest first."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._ttl_s = settings.result_ttl_s
        self._add, self._requeue_job, self._note_deleted = (
            register(client, name) for name in ("add_dead_letter", "requeue_job", "note_deleted")
        )

    def add(
        self, kind: Kind, reason: str, *, task_id: str = "", num_bytes: int, raw: bytes = b""
    ) -> None:
        """Keep a letter.

        Args:
            num_bytes: size of what could not be read.
            raw: what a requeue needs: the message, or the payload of the job. More than
                `MAX_RAW_BYTES` are not kept.
        """
        kept = raw if len(raw) <= MAX_RAW_BYTES else b""
        facts = {"kind": kind, "reason": reason, "task_id": task_id, "num_bytes": num_bytes}
        self._add(
            keys=[keys.DEAD_LETTERS, keys.DEAD_LETTER_RAWS, keys.FORGETTABLE_SINCE],
            args=[MAX_LETTERS, kept, *(word for fact in facts.items() for word in fact)],
        )

    def letters(self) -> list[DeadLetter]:
        """All letters."""
        return read(self._client, ask_letters())

    def drop(self, letter_ids: Iterable[str]) -> None:
        """Delete letters for good."""
        ids = list(letter_ids)
        if not ids:
            return
        with self._client.pipeline() as pipe:
            pipe.xdel(keys.DEAD_LETTERS, *ids).hdel(keys.DEAD_LETTER_RAWS, *ids)
            self._note_deleted(keys=[keys.FORGETTABLE_SINCE], client=pipe)
            pipe.execute()

    def drop_of(self, task_id: str) -> None:
        """Delete the letters of a job, or of all parts of a batch, for a user who erases it."""
        if self._client.xlen(keys.DEAD_LETTERS):
            whole = (each.id for each in self.letters() if each.task_id.split(".")[0] == task_id)
            self.drop(whole)

    def drop_expired(self) -> None:
        """Delete letters that are older than a result may be."""
        before_ms = int((CLOCK.now() - self._ttl_s) * 1000)
        expired = self._client.xrange(keys.DEAD_LETTERS, max=max(before_ms, 0))
        self.drop(letter_id.decode() for letter_id, _ in expired)

    def requeue(self, letter: DeadLetter) -> None:
        """Try a letter again: put back its message, or make its job wait again.

        The deadline of the job is as far ahead as it was when the job was submitted.

        Raises:
            NotRequeued
        """
        raw = self._client.hget(keys.DEAD_LETTER_RAWS, letter.id)
        if letter.kind == "lease":
            raise NotRequeued("a lease is not requeued: its worker writes a new one")
        if raw is None:
            raise NotRequeued("its bytes were not kept; send the job again")
        if letter.kind == "message":
            with self._client.pipeline() as pipe:
                pipe.rpush(keys.QUEUE, raw).xdel(keys.DEAD_LETTERS, letter.id)
                pipe.hdel(keys.DEAD_LETTER_RAWS, letter.id).execute()
        else:
            self._make_wait(letter, raw)

    def _make_wait(self, letter: DeadLetter, payload: bytes) -> None:
        task_id = letter.task_id
        if part_id(task_id):
            raise NotRequeued("its lines have ended in their batch; send them again")
        try:
            job = decode_payload(payload)
        except (Unreadable, NewerFormat) as error:
            raise NotRequeued(f"this release cannot read its payload: {error}") from error
        record = self._client.get(keys.record(task_id))
        if record is None or not _ended_as_unreadable(task_id, record):
            raise NotRequeued("its job was erased, has expired or has another result")
        wait_s = max(job.deadline_at - job.submitted_at, 0)
        CLOCK.ask(self._client)
        job = replace(job, deadline_at=CLOCK.now() + wait_s)
        names = [
            *(keys.record(task_id), keys.payload(task_id)),
            keys.turns(job.fingerprint, job.priority),
            keys.waiting(job.fingerprint, job.priority),
            *(keys.DEAD_LETTERS, keys.DEAD_LETTER_RAWS, *keys.LIVE, keys.STORED),
        ]
        args: list[Any] = [
            *(record, queued_record(task_id, job.facts()), encode_payload(job)),
            task_message(task_id, job.work_bytes, job.priority, job.fingerprint, origin_of(job)),
            *(task_id, job.work_bytes, job.client),
            *(int(wait_s) + self._ttl_s, letter.id),
            *(promised_bytes(job.result_bytes), self._ttl_s),
        ]
        if not self._requeue_job(keys=names, args=args):
            raise NotRequeued("its job changed meanwhile; try again")


def ask_letters() -> Reading[list[DeadLetter]]:
    """All letters, oldest first."""
    (entries,) = yield [("XRANGE", keys.DEAD_LETTERS, "-", "+")]
    return [_letter(*entry) for entry in entries]


def _letter(letter_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    facts = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    return DeadLetter(
        id=letter_id.decode(),
        kind=facts["kind"],
        reason=facts["reason"],
        task_id=facts["task_id"],
        num_bytes=int(facts["num_bytes"]),
    )


def _ended_as_unreadable(task_id: str, record: bytes) -> bool:
    try:
        error = decode_record(task_id, record).error
    except (Unreadable, NewerFormat):
        return False
    return error is not None and error["code"] == JobUnreadable.code
