"""Reads the wait time and the Idempotency-Key from a request's headers and query."""

import hashlib
import re
from math import isfinite

from flask import request

from app.requests.query import Query
from app.service.components import service
from contract.grammar.invalid import invalid
from contract.grammar.numbers import parse_number
from contract.store.admission.outcomes import Idempotency

MAX_IDEMPOTENCY_KEY_CHARS = 255
_IDEMPOTENCY_KEY = re.compile(rf"[!-~]{{1,{MAX_IDEMPOTENCY_KEY_CHARS}}}")
_PREFERRED_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


def idempotency_key() -> str | None:
    """Return the Idempotency-Key of this request, or None.

    Raises:
        RequestInvalid
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise invalid(
            f"must be 1 to {MAX_IDEMPOTENCY_KEY_CHARS} visible ASCII characters without spaces",
            header="Idempotency-Key",
        )
    return key


def idempotency(key: str, digest: "hashlib._Hash", owner: str) -> Idempotency:
    """Tie `key` to the request with this SHA-256 digest; each owner has keys of its own."""
    named = f"{owner}\n{key}" if owner else key
    return Idempotency(hashlib.sha256(named.encode()).hexdigest(), digest.hexdigest())


def asked_wait_s(query: Query) -> tuple[float, str]:
    """Take the time to wait from `?wait=`, or else from `Prefer: wait=` (RFC 7240).

    Returns:
        Seconds, at most `max_wait_s`, and the preference that the answer confirms, '' for none.
    """
    limit_s = service().settings.max_wait_s
    given = query.poplist("wait")
    if given:
        return min(_seconds(given), limit_s), ""
    preferred = _PREFERRED_WAIT.search(request.headers.get("Prefer", ""))
    if preferred is None:
        return 0, ""
    wait_s = min(float(preferred[1]), limit_s)
    return wait_s, f"wait={wait_s:.0f}"


def _seconds(given: list[str]) -> float:
    try:
        (seconds,) = map(parse_number, given)
    except ValueError:
        seconds = -1
    if not (isfinite(seconds) and seconds >= 0):
        raise invalid("must be one number of seconds, 0 or more", parameter="wait")
    return seconds
