"""What one worker process is made of; built at start, handed to the task and the boot steps."""

from dataclasses import dataclass, field

import redis

from contract.settings import Settings
from contract.store.batch_queue import BatchQueue
from contract.store.job_store import JobStore
from model import Scorer
from worker.lease import Lease, WorkerStatus


@dataclass(slots=True)
class Runtime:
    """The parts of a worker; `scorer` is there once the model is loaded."""

    settings: Settings
    client: redis.Redis
    store: JobStore
    batches: BatchQueue
    status: WorkerStatus
    lease: Lease
    scorer: Scorer | None = field(default=None)
