"""Looks after parked and overdue jobs, orphans, dead letters and broken leases, once a second."""

from collections.abc import Callable

import redis

from contract import keys
from contract.errors import JobExpired
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.jobs.job_store import JobStore
from contract.store.queue.dead_letters import DeadLetters
from contract.store.queue.parked_jobs import ParkedJobs
from contract.worker_status import NotAWorkerStatus, decode_status
from worker.process.registration import Registration
from worker.recovery.lost_turns import LostTurns
from worker.recovery.orphans import Orphans
from worker.recovery.overdue import Overdue
from worker.scoring.outcomes import lost_ending

log = get_logger(__name__)


def run_each(*steps: Callable[[], object]) -> None:
    """Run each step, also after Redis has refused an earlier one; it may free memory.

    Raises:
        redis.RedisError: Redis is away.
    """
    refusals = []
    for step in steps:
        try:
            step()
        except redis.ResponseError as error:
            refusals.append(error)
    if refusals:
        log.warning("upkeep_refused", error=type(refusals[0]).__name__, steps=len(refusals))


class Upkeep:
    """Takes back parked jobs and takes over orphans, and ends what waited for too long."""

    def __init__(
        self,
        client: redis.Redis,
        store: JobStore,
        settings: Settings,
        registration: Registration,
    ) -> None:
        self._client, self._store = client, store
        self._registration = registration
        max_wait_s = max(settings.max_deadline_s, settings.max_upload_deadline_s)
        self._orphans = Orphans(client, store, lease_s=settings.lease_s, max_wait_s=max_wait_s)
        self._overdue = Overdue(client, store)
        self._lost_turns = LostTurns(client)
        self._parked = ParkedJobs(client)
        self._letters = DeadLetters(client, settings)
        self._max_wait_s = max_wait_s

    def run(self) -> None:
        """Do all of it. A lost connection reaches the caller."""
        run_each(
            self._registration.renew,
            lambda: self._orphans.take_over(*self._registration.model),
            lambda: self._lost_turns.put_back(self._registration.model[1]),
            self._parked.take_back,
            self._overdue.end_some,
            self._letters.drop_expired,
            lambda: set_aside_broken_leases(self._client, self._store),
            self._end_parked,
        )

    def _end_parked(self) -> None:
        # Its own deadline cannot be read, so the longest that there is applies.
        for task_id, message in self._parked.parked_before(CLOCK.now() - self._max_wait_s):
            error = JobExpired("No worker could read the job before its deadline; send it again.")
            self._store.conclude([lost_ending(task_id, self._store.facts(task_id), error)])
            self._parked.drop(message)


def set_aside_broken_leases(client: redis.Redis, store: JobStore, own_name: str = "") -> None:
    """Set aside each lease that is no status and never expires.

    Its worker would never count as dead. Other broken leases expire, or their worker renews them.

    Args:
        own_name: a worker that has no lease yet; its name may be held by a broken one.
    """
    names = {name.decode() for name in client.smembers(keys.WORKERS)}
    for lease in map(keys.lease, sorted(names | {own_name} - {""})):
        value = client.get(lease) if client.pttl(lease) == -1 else None
        if value is None:
            continue
        try:
            decode_status(value)
        except NotAWorkerStatus:
            store.set_aside("lease", "no_status", num_bytes=len(value))
            client.delete(lease)
