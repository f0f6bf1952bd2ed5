"""Makes and verifies the IDs of tasks and batches: random, ordered by time, and signed.

A signed ID without a record has expired or was erased (410). Any other string was never issued
(404). So no tombstone has to be kept. An ID also tells whether it was issued to a given owner. So
an owner gets the same 404 for another's ID, whatever became of the task.
"""

import base64
import hmac
import secrets
import time
from hashlib import sha256

_TIME_BYTES, _RANDOM_BYTES, _OWNER_BYTES, _SIGNATURE_BYTES = 6, 5, 4, 5
TASK, BATCH, FILE = b"", b"batch", b"file"
"""The purposes of IDs; an ID of one purpose is none of another."""
_LENGTH = 32  # base32 characters of the 20 bytes


def new_task_id(secret: bytes, owner: str = "", purpose: bytes = TASK) -> str:
    """A new ID of 32 characters a-z, 2-7.

    It holds milliseconds, 40 random bits, 32 bits that depend on the owner, and a signature of 40
    bits. A guess must match all but the milliseconds.

    Args:
        secret: signs the ID.
        owner: the name of the key that it is issued to; '' for anyone.
        purpose: `TASK`, `BATCH` or `FILE`.
    """
    now_ms = time.time_ns() // 1_000_000
    start = now_ms.to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_RANDOM_BYTES)
    body = start + _owner_mark(secret, start, owner)
    return base64.b32encode(body + _sign(secret, purpose, body)).decode("ascii").lower()


def is_task_id(secret: bytes, task_id: str, purpose: bytes = TASK) -> bool:
    """Whether `task_id` was made by `new_task_id` with this secret and purpose."""
    raw = _decoded(task_id)
    if raw is None:
        return False
    body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
    return hmac.compare_digest(signature, _sign(secret, purpose, body))


def is_owned_by(secret: bytes, task_id: str, owner: str) -> bool:
    """Whether an ID of any purpose was issued to `owner`."""
    raw = _decoded(task_id)
    if raw is None:
        return False
    start = raw[: _TIME_BYTES + _RANDOM_BYTES]
    mark = raw[_TIME_BYTES + _RANDOM_BYTES : -_SIGNATURE_BYTES]
    return hmac.compare_digest(mark, _owner_mark(secret, start, owner))


def _decoded(task_id: str) -> bytes | None:
    if len(task_id) != _LENGTH or task_id != task_id.lower():
        return None
    try:
        return base64.b32decode(task_id.upper())
    except ValueError:
        return None


def _owner_mark(secret: bytes, start: bytes, owner: str) -> bytes:
    return hmac.digest(secret, b"owner" + start + owner.encode(), sha256)[:_OWNER_BYTES]


def _sign(secret: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.digest(secret + purpose, body, sha256)[:_SIGNATURE_BYTES]
