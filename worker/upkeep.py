"""Looks after parked jobs and dead letters, once a second."""

import time

import redis

from contract.errors import JobExpired
from contract.settings import Settings
from contract.store.dead_letters import DeadLetters
from contract.store.job_store import JobStore
from contract.store.parked_jobs import ParkedJobs
from worker.outcomes import lost_ending


class Upkeep:
    """Takes back the parked jobs that this release can read, and ends what waited for too long."""

    def __init__(self, client: redis.Redis, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._parked = ParkedJobs(client)
        self._letters = DeadLetters(client, settings)
        self._max_wait_s = max(settings.max_deadline_s, settings.max_upload_deadline_s)

    def run(self) -> None:
        """Do all of it. Redis errors reach the caller."""
        self._parked.take_back()
        self._letters.drop_expired()
        # Its own deadline cannot be read, so the longest that there is applies.
        for task_id, message in self._parked.parked_before(time.time() - self._max_wait_s):
            error = JobExpired("No worker could read the job before its deadline; send it again.")
            self._store.conclude([lost_ending(task_id, self._store.facts(task_id), error)])
            self._parked.drop(message)
