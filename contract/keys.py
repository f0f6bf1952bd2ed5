"""Names every key in Redis, the queue and the Celery task."""

QUEUE = "evascore"
TASK = "evascore.score"

# Celery's Redis priorities: one list per step, 0 the most urgent.
INTERACTIVE, BULK = 0, 9
PRIORITY_STEPS = (INTERACTIVE, BULK)
PRIORITY_SEPARATOR = "\x06\x16"  # kombu's default between a queue's name and its priority

UNBOUND = "?"  # stands for the model of jobs that were accepted before any model was known
# Hash: task ID -> "bytes promised client", for every job not in a final state (`live.lua`).
LIVE_JOBS = "evascore:live_jobs"
LIVE_BYTES = "evascore:live_bytes"  # the sum of the bytes in that hash
# The sum of the result bytes promised in that hash, and in that of batches below.
LIVE_PROMISED = "evascore:live_promised"
# Hash: `jobs:`, `bytes:` or `promised:` and a client -> its live jobs.
LIVE_CLIENTS = "evascore:live_clients"
LIVE = (LIVE_JOBS, LIVE_BYTES, LIVE_PROMISED, LIVE_CLIENTS)
TOTALS = "evascore:totals"  # hash of counters since the data folder was made
# Signs task IDs, shared by all web processes. This is the name of the key, not the secret.
ID_SECRET = "evascore:id_secret"  # noqa: S105
LIVE_BATCHES = "evascore:live_batches"  # hash: batch ID -> bytes of work of it that are left
LIVE_LINES = "evascore:live_lines"  # hash: batch ID -> lines of it that have not ended
CANCELLING = "evascore:cancelling"  # set: batches that were cancelled and have not ended
# Hash: the sums of the two hashes above, as `bytes` and `lines`.
BULK_LOAD = "evascore:bulk_load"
BATCH_CLIENTS = "evascore:batch_clients"  # hash: batch ID -> client, of live batches
# Hash: `batches:`, `bytes:` or `promised:` and a client -> its live batches.
BULK_CLIENTS = "evascore:bulk_clients"
BATCH_PROMISED = "evascore:batch_promised"  # hash: batch ID -> result bytes promised and left
PROMISES = (LIVE_PROMISED, BATCH_PROMISED)
# Begins the names of strings: bytes that a client has stored and that expire in one period
# (`stored.lua`).
STORED = "evascore:stored:"
BATCH_TOTALS = "evascore:batch_totals"  # hash of counters of ended batches and of their lines
UNPUBLISHED = "evascore:unpublished"  # set: batches with parts that are not queued yet
# Sorted set: files of OpenAI's Files API by the Unix time at which they expire (`files.lua`).
FILES = "evascore:files"
FILE_SIZES = "evascore:file_sizes"  # hash: file ID -> "bytes client", compressed
FILE_CLIENTS = "evascore:file_clients"  # hash: client -> the sum of the bytes of its files
STORED_FILES = (FILES, FILE_SIZES, FILE_CLIENTS)
# The same three for uploads that are not accepted yet; the sizes are those of their payloads.
UPLOADS = "evascore:uploads"
UPLOAD_SIZES = "evascore:upload_sizes"
UPLOAD_CLIENTS = "evascore:upload_clients"
STORED_UPLOADS = (UPLOADS, UPLOAD_SIZES, UPLOAD_CLIENTS)
MODELS = "evascore:models"  # hash: name of a model -> its current fingerprint
FINGERPRINTS = "evascore:fingerprints"  # set: fingerprints that were ever current
API_KEYS = "evascore:api_keys"  # hash: key ID -> what is kept of an API key
MODEL_DRIFTED = "evascore:model_drifted"  # name of the worker that stopped last because of it
WORKERS = "evascore:workers"  # set: names of workers that have held a lease
# Unix time, seconds: when something of a user was deleted that files of Redis still have.
FORGETTABLE_SINCE = "evascore:forgettable_since"
REWRITING = "evascore:rewriting"  # that time, and the rewrite that runs for it
EXPIRED = "evascore:expired"  # the number of keys that have expired, as it was last seen
# Unix time, seconds, at which a backup was verified; 0 if one was tried and none ever was
LAST_BACKUP = "evascore:last_backup"
DEAD_LETTERS = "evascore:dead_letters"  # stream: facts of what could not be read
DEAD_LETTER_RAWS = "evascore:dead_letter_raws"  # hash: dead letter ID -> bytes for a requeue
PARKED = "evascore:parked"  # set: newer major versions that have parked messages
# Sorted set: workers whose lease expired while they scored, by the Unix time at which it was seen.
MISSING = "evascore:missing"
# Sorted set: workers whose lease expired and that have not come back, by that Unix time.
LOST_WORKERS = "evascore:lost_workers"
ABSENT = "evascore:absent"  # no such key: deleting it shows whether Redis takes writes


def queue_list(priority: int) -> str:
    """The list of messages that are in no queue of a model, such as those of release 0.1.0.

    The next fetch of any worker puts them behind the express messages and before all others.
    """
    return f"{QUEUE}{PRIORITY_SEPARATOR}{priority}" if priority else QUEUE


def turns(fingerprint: str, priority: int) -> str:
    """List of the clients with messages for the model of this fingerprint, the next one last.

    `queue.lua` has a name there for all messages that go first.
    """
    return f"evascore:turns:{fingerprint}:{priority}"


def waiting(fingerprint: str, priority: int, client: str = "") -> str:
    """List of the waiting messages of a client, the next one last; without client its prefix."""
    return f"evascore:waiting:{fingerprint}:{priority}:{client}"


def deficits(fingerprint: str, priority: int) -> str:
    """Hash: client -> bytes of work that the client may still take in its turn."""
    return f"evascore:deficits:{fingerprint}:{priority}"


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


def quota(owner: str) -> str:
    """Hash: what the buckets of an API key's quota hold (`quota.lua`)."""
    return f"evascore:quota:{owner}"


def batch(batch_id: str) -> str:
    """Hash of the facts and counts of a batch; its changes are published under the same name.

    A message is the part that has ended, as in the set of parts, or '' for any other change.
    """
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


def file(file_id: str) -> str:
    """Hash of a file of OpenAI's Files API: its facts, and its pieces by number, compressed."""
    return f"evascore:file:{file_id}"


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


def starts(worker: str) -> str:
    """Number of starts of `worker`, each within an hour of the one before."""
    return f"evascore:starts:{worker}"


def lease(worker: str) -> str:
    """Lease of `worker`, which expires if it dies; its value is the worker's status."""
    return f"evascore:lease:{worker}"


def reaping(worker: str) -> str:
    """Lock of the peer that requeues the jobs of the dead `worker`."""
    return f"evascore:reaping:{worker}"
