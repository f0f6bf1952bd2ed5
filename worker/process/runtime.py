"""Holds the components of a worker process, which the task and the boot steps share."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

from contract.settings import Settings
from contract.store.batches.batch_queue import BatchQueue
from contract.store.jobs.job_store import JobStore
from model import Scorer
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.registration import Registration

if TYPE_CHECKING:
    from contract.otel import Tracing


@dataclass(slots=True)
class Runtime:
    """The components of one worker; `scorer` is set when the model is loaded."""

    settings: Settings
    client: redis.Redis
    store: JobStore
    batches: BatchQueue
    status: OwnStatus
    lease: Lease
    registration: Registration
    tracing: "Tracing | None" = None
    """Makes the spans of jobs; None where traces are off."""
    scorer: Scorer | None = None
    is_broken: bool = False
    """Whether the jobs in hand ended this process, as if it had crashed while scoring them."""

    def become_ready(self) -> None:
        """Say that the worker takes jobs, and make its model the current one of its name."""
        self.status.state = "ready"
        # The thread of the lease and the upkeep do it again if Redis is away.
        with suppress(redis.RedisError):
            self.lease.renew()
            self.registration.renew()
