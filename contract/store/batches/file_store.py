"""Stores files of OpenAI's Files API in Redis, and the fields that only OpenAI's batches have."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import redis
import zstandard

from contract import keys
from contract.api_keys import NO_QUOTA, Quota
from contract.batches import Batch
from contract.errors import JobGone, JobNotFound
from contract.settings import Settings
from contract.store.admission.memory import memory_of
from contract.store.admission.outcomes import QuotaLeft, QuotaUsedUp, raise_refusal
from contract.store.admission.submitting import quota_args
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.scripts import register
from contract.store.jobs.absent import absent
from contract.store.jobs.job_store import JobStore
from contract.task_ids import FILE, is_task_id, new_task_id

# The fastest level halves the size of text.
_LEVEL = 1
_FACTS, _OPENAI = b"facts", b"openai"


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
        self._store_piece, self._finish, self._delete, self._note_batch, self._keep = (
            register(client, name)
            for name in (
                *("store_piece", "finish_file", "delete_file"),
                *("note_openai_batch", "keep_file"),
            )
        )

    def new_id(self, owner: str = "") -> str:
        """The ID for a new file of `owner`. Raises: BrokerUnavailable."""
        with self._guard.calling():
            return new_task_id(self._jobs.id_secret(), owner, FILE)

    def add_piece(
        self, file_id: str, number: int, piece: bytes, *, client: str, quota: Quota = NO_QUOTA
    ) -> int:
        """Store a piece of a file that is being received, compressed; return its size in Redis.

        Args:
            client: whose files it is counted with.

        Raises:
            NoRoom: Redis has no room for it, or the files of its client take their share.
            BrokerUnavailable
        """
        stored = zstandard.compress(piece, _LEVEL)
        with self._guard.calling():
            memory = memory_of(self._client.info("memory"), self._settings)
            verdict, *details = self._store_piece(
                keys=[keys.file(file_id), *keys.STORED_FILES, keys.LIVE_PROMISED],
                args=[
                    *(file_id, client, number, stored, self._settings.upload_ttl_s),
                    *(memory.room_bytes, int(quota.queue_share * memory.capacity_bytes)),
                ],
            )
        raise_refusal(verdict, details, needed_bytes=len(stored), memory=memory)
        return len(stored)

    def finish(self, file: StoredFile, quota: Quota = NO_QUOTA) -> QuotaLeft | None:
        """Make a file of its pieces, and take one request from `quota`; return what is left.

        Raises:
            QuotaUsedUp, BrokerUnavailable
        """
        _, *limits = quota_args(quota)
        with self._guard.calling():
            bucket = keys.quota(quota.owner) if quota.is_limited else ""
            verdict, *details = self._finish(
                keys=[keys.file(file.id), *keys.STORED_FILES, bucket],
                args=[file.id, _facts(file), self._settings.result_ttl_s, *limits],
            )
        numbers = tuple(map(int, details))
        left = QuotaLeft(*numbers[:2]) if numbers and quota.is_limited else None
        if verdict == b"quota" and left is not None:
            raise QuotaUsedUp(left, numbers[2])
        return left

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

    def keep_for_batch(self, file_id: str, batch: Batch) -> None:
        """Keep a file as long as the results of `batch`, whose completions repeat its prompts.

        One that was deleted stays deleted. Repeating it changes nothing.

        Raises:
            BrokerUnavailable
        """
        try:
            file = self.read(file_id)
        except (JobGone, JobNotFound):
            return
        until = batch.deadline_at + self._settings.result_ttl_s
        if until > file.expires_at:
            facts = _facts(replace(file, expires_at=until))
            with self._guard.calling():
                self._keep(
                    keys=[keys.file(file_id), *keys.STORED_FILES],
                    args=[file_id, math.ceil(until), facts],
                )

    def delete(self, file_id: str) -> None:
        """Delete a file; repeating it is harmless. Raises: JobNotFound, BrokerUnavailable."""
        with self._guard.calling():
            if not is_task_id(self._jobs.id_secret(), file_id, FILE):
                raise self._absent(file_id)
            names = [keys.file(file_id), *keys.STORED_FILES, keys.FORGETTABLE_SINCE]
            self._delete(keys=names, args=[file_id])

    def note_batch(self, batch_id: str, facts: dict[str, Any]) -> None:
        """Store the fields that only OpenAI's batches have; what was stored before stays.

        They are part of the batch, and so they count, expire and are erased with it.

        Raises:
            BrokerUnavailable
        """
        with self._guard.calling():
            self._note_batch(
                keys=[keys.batch(batch_id), keys.STORED],
                args=[orjson.dumps(facts), self._settings.result_ttl_s],
            )

    def batch_facts(self, batch_id: str) -> dict[str, Any]:
        """What `note_batch` stored; empty for a batch of `POST /batches`.

        Raises:
            BrokerUnavailable
        """
        with self._guard.calling():
            found = self._client.hget(keys.batch(batch_id), _OPENAI)
        facts: dict[str, Any] = orjson.loads(found) if found else {}
        return facts

    def _absent(self, file_id: str) -> JobGone | JobNotFound:
        gone = "This file has expired or was deleted; upload it again."
        return absent(self._jobs.id_secret(), file_id, FILE, gone)


def _facts(file: StoredFile) -> bytes:
    facts = [file.name, file.num_bytes, file.num_pieces, file.created_at, file.expires_at]
    return orjson.dumps(facts)
