"""Makes and verifies task IDs, which are random, ordered by time and signed.

A signed ID without a record has expired or was erased (410). Any other string was never issued
(404). So no tombstone has to be kept.
"""

import base64
import hmac
import secrets
import time
from hashlib import sha256

_TIME_BYTES, _RANDOM_BYTES, _SIGNATURE_BYTES = 6, 9, 5
_LENGTH = 32  # base32 characters of the 20 bytes


def new_task_id(secret: bytes) -> str:
    """A new ID of 32 characters a-z, 2-7: milliseconds, 72 random bits, 40 bits of signature."""
    now_ms = time.time_ns() // 1_000_000
    body = now_ms.to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_RANDOM_BYTES)
    return base64.b32encode(body + _sign(secret, body)).decode("ascii").lower()


def is_task_id(secret: bytes, task_id: str) -> bool:
    """Whether `task_id` was made by `new_task_id` with this secret."""
    if len(task_id) != _LENGTH or task_id != task_id.lower():
        return False
    try:
        raw = base64.b32decode(task_id.upper())
    except ValueError:
        return False
    body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
    return hmac.compare_digest(signature, _sign(secret, body))


def _sign(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, sha256)[:_SIGNATURE_BYTES]
