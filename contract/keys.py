"""Names every key in Redis, the queue and the Celery task."""

QUEUE = "evascore"
TASK = "evascore.score"

# Celery's Redis priorities: one list per step, 0 the most urgent.
INTERACTIVE, BULK = 0, 9
PRIORITY_STEPS = (INTERACTIVE, BULK)
PRIORITY_SEPARATOR = "\x06\x16"  # kombu's default between a queue's name and its priority

LIVE_JOBS = "evascore:live_jobs"  # hash: task ID -> bytes, for every job not in a final state
LIVE_BYTES = "evascore:live_bytes"  # the sum of that hash's values
TOTALS = "evascore:totals"  # hash of counters since the data folder was made
# Signs task IDs, shared by all web processes. This is the name of the key, not the secret.
ID_SECRET = "evascore:id_secret"  # noqa: S105
LIVE_BATCHES = "evascore:live_batches"  # hash: batch ID -> bytes of work of it that are left
LIVE_LINES = "evascore:live_lines"  # hash: batch ID -> lines of it that have not ended
CANCELLING = "evascore:cancelling"  # set: batches that were cancelled and have not ended
# Hash: the sums of the two hashes above, as `bytes` and `lines`. A limit per client would keep one
# more hash of this form for each client.
BULK_LOAD = "evascore:bulk_load"
BATCH_TOTALS = "evascore:batch_totals"  # hash of counters of ended batches and of their lines
UNPUBLISHED = "evascore:unpublished"  # set: batches with parts that are not queued yet
MODEL_DRIFTED = "evascore:model_drifted"  # name of the worker that stopped last because of it
WORKERS = "evascore:workers"  # set: names of workers that have held a lease
DEAD_LETTERS = "evascore:dead_letters"  # stream: facts of what could not be read
DEAD_LETTER_RAWS = "evascore:dead_letter_raws"  # hash: dead letter ID -> bytes for a requeue
PARKED = "evascore:parked"  # set: newer major versions that have parked messages
# Sorted set: workers whose lease expired while they scored, by the Unix time at which it was seen.
MISSING = "evascore:missing"


def queue_list(priority: int) -> str:
    """The Redis list that holds the waiting messages of `priority`."""
    return f"{QUEUE}{PRIORITY_SEPARATOR}{priority}" if priority else QUEUE


def record(task_id: str) -> str:
    """The record of a job: Celery's result-backend entry, so that `AsyncResult` reads it."""
    return f"celery-task-meta-{task_id}"


def payload(task_id: str) -> str:
    """The texts and options of a job; deleted when the job ends."""
    return f"evascore:payload:{task_id}"


def result(task_id: str) -> str:
    """The result of a job if it is large, compressed; it expires with the record."""
    return f"evascore:result:{task_id}"


def idempotency(digest: str) -> str:
    """The task ID and the request digest that an Idempotency-Key stands for."""
    return f"evascore:idempotency:{digest}"


def batch(batch_id: str) -> str:
    """Hash of the facts and counts of a batch; its changes are published under the same name."""
    return f"evascore:batch:{batch_id}"


def batch_parts(batch_id: str) -> str:
    """Sorted set of the parts of a batch, each by the index of its first line."""
    return f"evascore:batch_parts:{batch_id}"


def batch_texts(batch_id: str) -> str:
    """Hash: index of a part's first line -> its payload; deleted when the part ends."""
    return f"evascore:batch_texts:{batch_id}"


def batch_results(batch_id: str) -> str:
    """Hash: index of a part's first line -> its result lines."""
    return f"evascore:batch_results:{batch_id}"


def publishing(batch_id: str) -> str:
    """Lock of the process that queues the parts of the batch."""
    return f"evascore:publishing:{batch_id}"


def unacked(worker: str) -> str:
    """Hash of the messages that `worker` fetched and has not acknowledged, in kombu's format."""
    return f"evascore:unacked:{worker}"


def unacked_index(worker: str) -> str:
    """Sorted set of the delivery tags in `unacked`, by time of fetching."""
    return f"evascore:unacked_index:{worker}"


def parked(major: int) -> str:
    """Sorted set of the messages that only workers of `major` can read, by time of parking."""
    return f"evascore:parked:{major}"


def aboard(worker: str) -> str:
    """Set of the delivery tags in the micro-batch of `worker`: the suspects if it dies."""
    return f"evascore:aboard:{worker}"


def missing_aboard(worker: str) -> str:
    """The set `aboard` of a worker whose lease expired; it may have died or be cut off."""
    return f"evascore:missing_aboard:{worker}"


def crashes(task_id: str) -> str:
    """Hash of how many workers died while they scored the job, and whether it was alone then."""
    return f"evascore:crashes:{task_id}"


def lease(worker: str) -> str:
    """Lease of `worker`, which expires if it dies; its value is the worker's status."""
    return f"evascore:lease:{worker}"


def reaping(worker: str) -> str:
    """Lock of the peer that requeues the jobs of the dead `worker`."""
    return f"evascore:reaping:{worker}"
