"""Opens fetched jobs in Redis: reads their payloads, or says why a job has none to score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from contract import keys
from contract.batches import decode_part, decode_part_payload, part_id
from contract.messages import Job, decode_payload, decode_record
from contract.store.connection.script_runner import ScriptRunner
from contract.store.connection.scripts import register
from contract.store.queue.dead_letters import Kind
from contract.versions import NewerFormat, Unreadable


@dataclass(frozen=True, slots=True)
class Broken:
    """Why the payload or the record of a job cannot be read."""

    kind: Kind
    reason: str
    num_bytes: int
    """Size of what cannot be read."""
    payload: bytes
    """The stored payload; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer of `open_jobs` for one job; of one that ended or was erased, its ID alone."""

    task_id: str
    job: Job | None = None
    lost_facts: dict[str, Any] | None = None
    """The facts in the record of a job that has not ended but whose payload is gone."""
    broken: Broken | None = None
    elsewhere: str | None = None
    """The fingerprint that the job is bound to, if it is not that of the worker."""
    newer_major: int | None = None
    """The format of a job that only a newer release can read."""


class JobOpener:
    """Reads what workers need of jobs; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, scripts: ScriptRunner) -> None:
        self._client, self._scripts = client, scripts
        self._open = register(client, "open")
        self._opened_by_fetch: dict[str, Sequence[bytes]] = {}

    def open_jobs(
        self, task_ids: Sequence[str], worker: str | None, fingerprint: str
    ) -> list[Opened]:
        """See `JobStore.open_jobs`."""
        if not task_ids:
            return []
        answers, self._opened_by_fetch = self._opened_by_fetch, {}
        if list(answers) != list(task_ids):
            answers = self._run(task_ids, worker, fingerprint)
        return [_opened(task_id, *answers[task_id]) for task_id in task_ids]

    def keep_opened(self, answers: dict[str, Sequence[bytes]]) -> None:
        """See `JobStore.keep_opened`."""
        self._opened_by_fetch = answers

    def _run(
        self, task_ids: Sequence[str], worker: str | None, fingerprint: str
    ) -> dict[str, Sequence[bytes]]:
        names, args = [keys.aboard(worker) if worker else ""], [fingerprint]
        for task_id in task_ids:
            part = part_id(task_id)
            place = keys.batch_texts(part.batch_id) if part else keys.payload(task_id)
            names += [keys.record(task_id), place, keys.batch(part.batch_id) if part else ""]
            args += [task_id, str(part.first) if part else ""]
        answers = self._scripts.run(self._open, names, args)
        return dict(zip(task_ids, answers, strict=True))

    def facts(self, task_id: str) -> dict[str, Any]:
        """See `JobStore.facts`; of a part they come from its batch, which its ending needs."""
        place = part_id(task_id)
        if place is not None:
            found = self._client.zrange(
                keys.batch_parts(place.batch_id), place.first, place.first, byscore=True
            )
            if not found:
                return {}
            part = decode_part(found[0])
            return {"num_texts": part.num_lines, "num_bytes": part.num_bytes, "is_single": False}
        raw = self._client.get(keys.record(task_id))
        try:
            return decode_record(task_id, raw).job if raw else {}
        except (Unreadable, NewerFormat):
            return {}

    def are_wanted(self, task_ids: Sequence[str]) -> list[bool]:
        """See `JobStore.are_wanted`."""
        raws = self._client.mget([keys.record(task_id) for task_id in task_ids]) if task_ids else []
        return [
            raw is not None and not _has_ended(task_id, raw)
            for task_id, raw in zip(task_ids, raws, strict=True)
        ]


def _has_ended(task_id: str, record: bytes) -> bool:
    try:
        return decode_record(task_id, record).is_final
    except (Unreadable, NewerFormat):
        # It was readable when the job was opened; the ending takes its place.
        return False


def _opened(task_id: str, verdict: bytes, found: bytes = b"", payload: bytes = b"") -> Opened:
    kind: Kind = "record"
    if verdict == b"elsewhere":
        return Opened(task_id, elsewhere=found.decode())
    try:
        if verdict == b"open":
            kind = "payload"
            decode = decode_part_payload if part_id(task_id) else decode_payload
            return Opened(task_id, job=decode(found))
        if verdict in (b"lost", b"broken"):
            facts = decode_record(task_id, found).job
            if verdict == b"broken":
                raise Unreadable("no_state", "Its state is not where it must be.")
            return Opened(task_id, lost_facts=facts)
    except NewerFormat as newer:
        return Opened(task_id, newer_major=newer.major)
    except Unreadable as error:
        kept = found if kind == "payload" else payload
        return Opened(task_id, broken=Broken(kind, error.reason, len(found), kept))
    return Opened(task_id)
