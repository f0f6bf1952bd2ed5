"""Queues the parts of accepted batches in groups, each part exactly once.

The web server does so when it has accepted a batch. If it dies meanwhile, a worker continues where
it stopped. Redis errors reach the caller.
"""

from typing import Any

import redis

from contract import keys
from contract.batches import Batch, Part, PartId, decode_batch, decode_part
from contract.logs import get_logger
from contract.messages import queued_record
from contract.queue_messages import Origin, task_message
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.admission.submitting import ttl_s
from contract.store.connection.locks import take_lock
from contract.store.connection.scripts import register

log = get_logger(__name__)

# Parts in one call: Redis needs a few milliseconds for them.
GROUP_PARTS = 128
# A process that queues parts is taken for dead after this time without progress.
_PUBLISHING_S = 10


class BatchQueue:
    """Puts the parts of batches into the queue; safe to share between threads."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._publish = register(client, "publish_parts")

    def publish(self, batch_id: str) -> None:
        """Queue the parts of an accepted batch that are not queued yet; harmless to repeat."""
        batch = find_batch(self._client, batch_id)
        if batch is None or batch.num_published >= batch.num_parts:
            # All its parts are queued, or it was erased meanwhile.
            self._client.srem(keys.UNPUBLISHED, batch_id)
            return
        num_published = batch.num_published
        while 0 <= num_published < batch.num_parts:
            take_lock(self._client, keys.publishing(batch_id), "", _PUBLISHING_S, is_forced=True)
            last = num_published + GROUP_PARTS - 1
            members = self._client.zrange(keys.batch_parts(batch_id), num_published, last)
            if not members:
                break
            num_published = self._publish_group(batch, num_published, members)
        self._client.delete(keys.publishing(batch_id))

    def publish_left_behind(self) -> None:
        """Queue the parts of batches whose web server died after it had accepted them."""
        for name in self._client.smembers(keys.UNPUBLISHED):
            batch_id = name.decode()
            if take_lock(self._client, keys.publishing(batch_id), "", _PUBLISHING_S):
                try:
                    self.publish(batch_id)
                except redis.ResponseError as error:
                    # The other batches go on; this one is tried again when the lock has expired.
                    kind = type(error).__name__
                    log.warning("batch_not_queued", batch_id=batch_id, error=kind)

    def _publish_group(self, batch: Batch, num_published: int, members: list[bytes]) -> int:
        names = [
            *(keys.batch(batch.id), keys.UNPUBLISHED),
            *(keys.turns(batch.fingerprint, keys.BULK), keys.waiting(batch.fingerprint, keys.BULK)),
        ]
        ttl = ttl_s(batch.deadline_at, self._settings)
        origin = Origin(submitted_at=batch.created_at)
        args: list[Any] = [batch.id, num_published, CLOCK.now(), ttl, batch.client]
        for part in map(decode_part, members):
            task_id = str(PartId(batch.id, part.first))
            names.append(keys.record(task_id))
            args.append(queued_record(task_id, part_facts(batch, part)))
            queue = keys.BULK, batch.fingerprint
            args.append(task_message(task_id, part.num_bytes, *queue, origin))
        return int(self._publish(keys=names, args=args))


def find_batch(client: redis.Redis, batch_id: str) -> Batch | None:
    """The state of a batch; None if there is no batch with this ID."""
    found = client.hgetall(keys.batch(batch_id))
    return decode_batch(batch_id, found) if found else None


def part_facts(batch: Batch, part: Part) -> dict[str, Any]:
    """The facts of a part for its record, in the form of `Job.facts`."""
    return {
        "num_texts": part.num_lines,
        "num_bytes": part.num_bytes,
        "submitted_at": batch.created_at,
        "deadline_at": batch.deadline_at,
        "is_single": False,
        "priority": keys.BULK,
    }
