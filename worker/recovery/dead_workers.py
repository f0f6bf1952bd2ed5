"""Requeues the jobs of dead workers within seconds, at every start and then once a second.

It also queues the parts of a batch whose web server died before all of them were queued.
"""

from typing import Any

import orjson
import redis
from celery import bootsteps

from contract import keys
from contract.logs import get_logger
from contract.queue_messages import queue_of
from contract.store.connection.locks import take_lock
from contract.store.connection.scripts import register
from contract.store.queue.leases import REDELIVERED, Cause
from worker.process import suspects
from worker.process.backoff import Backoff, wait
from worker.queue.micro_batch import is_stopping
from worker.queue.transport import refusal_as_lost_connection
from worker.recovery.upkeep import Upkeep, run_each

log = get_logger(__name__)

# Workers check each other this often. If one dies while it requeues, another may do so after
# `_REAPING_S`.
_LOOK_EVERY_S = 1.0
_REAPING_S = 30


def requeue_left_behind(client: redis.Redis, worker: str, cause: Cause) -> int:
    """Requeue the jobs that `worker` fetched and did not acknowledge.

    Args:
        worker: a worker that has stopped, or the caller itself while it does not consume.
        cause: what the redeliveries are counted as.

    Returns:
        The number of requeued jobs.
    """
    unacked = keys.unacked(worker)
    requeue = register(client, "requeue")
    num_requeued = 0
    # From the last fetched to the first, because each goes to the front of its list.
    for tag in reversed(client.zrange(keys.unacked_index(worker), 0, -1)):
        stored = client.hget(unacked, tag)
        if stored is None:
            continue
        queue, message = _redelivered(stored)
        num_requeued += requeue(
            keys=[
                *(unacked, keys.unacked_index(worker)),
                *(keys.turns(*queue), keys.waiting(*queue), keys.TOTALS),
            ],
            args=[tag, message, REDELIVERED + cause],
        )
    if num_requeued:
        log.warning("jobs_requeued", worker=worker, jobs=num_requeued)
    return num_requeued


def _redelivered(stored: bytes) -> tuple[tuple[str, int], bytes]:
    """Return the queue and the bytes of a fetched message for its next delivery."""
    try:
        message = orjson.loads(stored)[0]
        message["properties"]["delivery_info"]["redelivered"] = True
        raw = orjson.dumps(message)
        return queue_of(raw), raw
    except (ValueError, LookupError, TypeError, AttributeError):
        # It died before it could set this one aside; the next worker that fetches it does so.
        return (keys.UNBOUND, keys.INTERACTIVE), stored[1:].rpartition(b', "", "')[0]


def take_over(client: redis.Redis, worker: str, *, is_crash: bool = True) -> None:
    """Requeue the jobs of a dead predecessor, whose name the caller now holds.

    Args:
        is_crash: whether the predecessor may have died while it scored.
    """
    if is_crash:
        _blame(client, worker)
    else:
        suspects.take_back(client, worker)
    requeue_left_behind(client, worker, "lost")


def give_back(client: redis.Redis, worker: str) -> None:
    """Requeue the caller's own jobs, which it does not score now: nobody died."""
    suspects.take_back(client, worker)
    requeue_left_behind(client, worker, "returned")


def requeue_of_missing_peers(client: redis.Redis, own_name: str) -> None:
    """Requeue the jobs of workers whose lease expired; count the deaths of long missing ones."""
    names = [name.decode() for name in client.smembers(keys.WORKERS)]
    peers = [name for name in names if name != own_name]
    leases = client.mget([keys.lease(name) for name in peers]) if peers else []
    for name, lease in zip(peers, leases, strict=True):
        if lease is None and take_lock(client, keys.reaping(name), own_name, _REAPING_S):
            suspects.set_aside(client, name)
            requeue_left_behind(client, name, "lost")
            if suspects.forget_worker(client, name):
                log.warning("worker_lost", worker=name)
            client.delete(keys.reaping(name))
    for name in suspects.long_missing(client):
        _blame(client, name)


def _blame(client: redis.Redis, worker: str) -> None:
    blamed = suspects.blame(client, worker)
    if blamed:
        log.warning("worker_died_while_scoring", worker=worker, jobs=len(blamed))


class Recovery(bootsteps.StartStopStep):
    """Consumer step that requeues our own jobs before consuming, and then those of dead workers."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._backoff = Backoff()

    def start(self, consumer: Any) -> None:
        """Run at the first connection, and again after each lost one."""
        runtime = consumer.app.runtime
        client, batches, name = runtime.client, runtime.batches, runtime.status.name
        upkeep = Upkeep(client, runtime.store, runtime.settings, runtime.registration)
        if delay_s := self._backoff.delay_s():
            log.warning("reconnecting_slowly", delay_s=delay_s)
            wait(delay_s, is_stopping)
        with refusal_as_lost_connection():
            # These are our own jobs from before the connection was lost. Those of a dead
            # predecessor were requeued when this worker took the name.
            give_back(client, name)

        def look_after_peers() -> None:
            try:
                run_each(
                    lambda: requeue_of_missing_peers(client, name),
                    batches.publish_left_behind,
                    upkeep.run,
                )
            except redis.RedisError as error:
                log.warning("peers_not_checked", error=type(error).__name__)

        self._timer = consumer.timer.call_repeatedly(_LOOK_EVERY_S, look_after_peers)

    def stop(self, consumer: Any) -> None:
        """Stop checking the other workers."""
        if self._timer is not None:
            self._timer.cancel()

    shutdown = stop
