"""Stores files of OpenAI's Files API in Redis, and the fields that only OpenAI's batches have."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import zstandard

from contract import keys
from contract.errors import JobGone, JobNotFound
from contract.settings import Settings
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.scripts import register
from contract.store.jobs.absent import absent
from contract.store.jobs.job_store import JobStore
from contract.task_ids import FILE, is_task_id, new_task_id

# The fastest level halves the size of text.
_LEVEL = 1
_FACTS = b"facts"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The facts of a file; times are Unix times in seconds."""

    id: str
    name: str
    num_bytes: int
    num_pieces: int
    created_at: float
    expires_at: float


class FileStore:
    """All files in Redis; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        jobs: JobStore,
        guard: BrokerGuard | None = None,
    ) -> None:
        """Keep files on the Redis of `client`; `jobs` has the secret that signs IDs."""
        self._client, self._settings, self._jobs = client, settings, jobs
        self._guard = guard or BrokerGuard()
        self._note_deleted = register(client, "note_deleted")

    def new_id(self, owner: str = "") -> str:
        """The ID for a new file of `owner`. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return new_task_id(self._jobs.id_secret(), owner, FILE)

    def add_piece(self, file_id: str, number: int, piece: bytes) -> int:
        """Store a piece of a file that is being received, compressed; return its size in Redis.

        Raises:
            BrokerUnavailable
        """
        stored = zstandard.compress(piece, _LEVEL)
        with self._guard.calling(), self._client.pipeline() as pipe:
            pipe.hset(keys.file(file_id), str(number), stored)
            # What is received of a file that breaks off is deleted then.
            pipe.expire(keys.file(file_id), self._settings.upload_ttl_s)
            pipe.execute()
        return len(stored)

    def finish(self, file_id: str, name: str, num_bytes: int, num_pieces: int) -> StoredFile:
        """Make a file of its pieces. Raises: BrokerUnavailable."""
        now, ttl_s = time.time(), self._settings.result_ttl_s
        file = StoredFile(file_id, name, num_bytes, num_pieces, now, now + ttl_s)
        facts = [name, num_bytes, num_pieces, file.created_at, file.expires_at]
        with self._guard.calling(), self._client.pipeline() as pipe:
            pipe.hset(keys.file(file_id), _FACTS, orjson.dumps(facts))
            pipe.expire(keys.file(file_id), ttl_s)
            pipe.execute()
        return file

    def read(self, file_id: str) -> StoredFile:
        """The facts of a file. Raises: JobNotFound, JobGone, BrokerUnavailable."""
        with self._guard.calling():
            found = self._client.hget(keys.file(file_id), _FACTS)
            if found is None:
                raise self._absent(file_id)
        return StoredFile(file_id, *orjson.loads(found))

    def pieces(self, file: StoredFile) -> Iterator[bytes]:
        """The content of a file. Raises: JobGone, BrokerUnavailable; also between two pieces."""
        for number in range(file.num_pieces):
            with self._guard.calling():
                stored = self._client.hget(keys.file(file.id), str(number))
                if stored is None:
                    raise self._absent(file.id)
            yield zstandard.decompress(stored)

    def delete(self, file_id: str) -> None:
        """Delete a file; repeating it is harmless. Raises: JobNotFound, BrokerUnavailable."""
        with self._guard.calling():
            if not is_task_id(self._jobs.id_secret(), file_id, FILE):
                raise self._absent(file_id)
            with self._client.pipeline() as pipe:
                pipe.unlink(keys.file(file_id))
                self._note_deleted(keys=[keys.FORGETTABLE_SINCE], client=pipe)
                pipe.execute()

    def note_batch(self, batch_id: str, facts: dict[str, Any]) -> None:
        """Store the fields that only OpenAI's batches have; what was stored before stays.

        Raises:
            BrokerUnavailable
        """
        ttl_s = int(self._settings.max_upload_deadline_s) + self._settings.result_ttl_s
        with self._guard.calling():
            self._client.set(keys.openai_batch(batch_id), orjson.dumps(facts), ex=ttl_s, nx=True)

    def batch_facts(self, batch_id: str) -> dict[str, Any]:
        """What `note_batch` stored; empty for a batch of `POST /batches`.

        Raises:
            BrokerUnavailable
        """
        with self._guard.calling():
            found = self._client.get(keys.openai_batch(batch_id))
        facts: dict[str, Any] = orjson.loads(found) if found else {}
        return facts

    def _absent(self, file_id: str) -> JobGone | JobNotFound:
        gone = "This file has expired or was deleted; upload it again."
        return absent(self._jobs.id_secret(), file_id, FILE, gone)
