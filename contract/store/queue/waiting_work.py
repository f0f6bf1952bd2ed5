"""Reads what waits in the queue of a model, and moves it to the queue of another one.

Each message is moved in one step with the binding of its job, so several workers may do this at the
same time. Redis errors reach the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import redis

from contract import keys
from contract.batches import PartId, decode_batch, decode_part_payload, part_id
from contract.messages import Job, Record, decode_record, rebound_record
from contract.queue_messages import decode_message, rebound_message
from contract.store.connection.scripts import register
from contract.versions import NewerFormat, Unreadable

# Messages read in one round trip.
_GROUP = 100


class Place(NamedTuple):
    """A list of waiting messages."""

    fingerprint: str
    """Of the model whose queue it is in."""
    priority: int
    client: str

    @property
    def key(self) -> str:
        """The key of the list."""
        return keys.waiting(*self)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting message, and the model that its job is bound to."""

    place: Place
    message: bytes
    task_id: str = ""
    """'' for a message that names no job."""
    record: bytes = b""
    """The record as it was read; empty if there is none."""
    state: Literal["waits", "over", "unreadable"] = "over"
    """`over`: the job has ended or was erased."""
    model: str = ""
    """The name of the model; '' for any."""
    fingerprint: str = keys.UNBOUND
    is_pinned: bool = False
    deadline_at: float = 0.0
    """Unix time, seconds."""

    @property
    def part(self) -> PartId | None:
        """The part that the job is; None for any other job."""
        return part_id(self.task_id)


class WaitingWork:
    """The queues of all models."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._move = register(client, "move_waiting")

    def places(self, fingerprints: Sequence[str]) -> list[Place]:
        """The lists with messages for these models, those of the first model first."""
        queues = [(each, priority) for each in fingerprints for priority in keys.PRIORITY_STEPS]
        with self._client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.lrange(keys.turns(*queue), 0, -1)
            found = pipe.execute()
        return [
            Place(*queue, name.decode())
            for queue, clients in zip(queues, found, strict=True)
            for name in reversed(clients)
        ]

    def oldest(self, place: Place, after: int = 0) -> list[Waiting]:
        """Messages of a list in order: those that follow the `after` that wait longest."""
        messages = self._client.lrange(place.key, -_GROUP - after, -1 - after)[::-1]
        names = [_task_id(message) for message in messages]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                part = part_id(name)
                pipe.get(keys.record(name))
                pipe.hgetall(keys.batch(part.batch_id) if part else "")
            found = pipe.execute()
        return [
            _waiting(place, message, name, record or b"", batch)
            for message, name, record, batch in zip(
                messages, names, found[::2], found[1::2], strict=True
            )
        ]

    def move(self, waiting: Sequence[Waiting], model: str, fingerprint: str) -> list[bool]:
        """Move messages to the queue of a model, and bind their jobs to it.

        Returns:
            For each whether its batch has scores already, so that it was not moved.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for each in waiting:
                self._add_move(pipe, each, model, fingerprint)
            answers = pipe.execute() if waiting else []
        return [answer == b"scored" for answer in answers]

    def take_out(self, waiting: Sequence[Waiting]) -> None:
        """Take messages out of their queues; their jobs have ended."""
        with self._client.pipeline(transaction=False) as pipe:
            for each in waiting:
                self._add_move(pipe, each, "", "")
            if waiting:
                pipe.execute()

    def job_of(self, waiting: Waiting) -> Job | None:
        """The job of a part with its lines; None if it is no part or cannot be read."""
        part = waiting.part
        if part is None:
            return None
        payload = self._client.hget(keys.batch_texts(part.batch_id), str(part.first))
        try:
            return decode_part_payload(payload) if payload else None
        except (Unreadable, NewerFormat):
            return None

    def _add_move(
        self, pipe: "redis.client.Pipeline", each: Waiting, model: str, fingerprint: str
    ) -> None:
        place, part = each.place, each.part
        source = place.fingerprint, place.priority
        target = fingerprint, place.priority
        waits = each.state == "waits"
        binds = waits and part is None and each.fingerprint != fingerprint
        self._move(
            keys=[
                *(keys.turns(*source), place.key, keys.deficits(*source)),
                keys.record(each.task_id),
                keys.batch(part.batch_id) if part and waits else "",
                keys.turns(*target) if fingerprint else "",
                keys.waiting(*target),
            ],
            args=[
                each.message,
                place.client,
                each.record if binds and fingerprint else b"",
                rebound_record(each.record, model, fingerprint) if binds else b"",
                rebound_message(each.message, fingerprint),
                *(each.fingerprint, fingerprint),
            ],
            client=pipe,
        )


def _task_id(message: bytes) -> str:
    try:
        return decode_message(message).task_id
    except (Unreadable, NewerFormat):
        return ""


def _waiting(
    place: Place, message: bytes, task_id: str, record: bytes, batch: dict[bytes, bytes]
) -> Waiting:
    try:
        found = decode_record(task_id, record) if record else None
    except (Unreadable, NewerFormat):
        return Waiting(place, message, task_id, record, "unreadable")
    if not task_id:
        return Waiting(place, message, state="unreadable")
    part = part_id(task_id)
    if found is None or found.is_final or (part and not batch):
        return Waiting(place, message, task_id, record)
    if part is None:
        return _of_job(place, message, record, found)
    whole = decode_batch(part.batch_id, batch)
    return Waiting(
        *(place, message, task_id, record, "waits"),
        model=whole.model_name,
        fingerprint=whole.fingerprint,
        is_pinned=whole.is_pinned,
        deadline_at=whole.deadline_at,
    )


def _of_job(place: Place, message: bytes, record: bytes, found: Record) -> Waiting:
    facts = found.job
    return Waiting(
        *(place, message, found.task_id, record, "waits"),
        model=str(facts.get("model", "")),
        fingerprint=str(facts.get("fingerprint", keys.UNBOUND)),
        is_pinned=facts.get("is_pinned") is True,
        deadline_at=float(facts.get("deadline_at", 0)),
    )
