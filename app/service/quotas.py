"""Reads the quota of the request's API key, and writes the RateLimit headers.

The headers are those of the IETF draft "RateLimit header fields for HTTP"
(draft-ietf-httpapi-ratelimit-headers-10).
"""

from collections.abc import Iterator

from flask import g

from contract.api_keys import NO_QUOTA, ApiKey, Quota
from contract.errors import QuotaExceeded
from contract.store.admission.outcomes import QuotaLeft, QuotaUsedUp

_WINDOW_S = 60


def current_key() -> ApiKey | None:
    """The API key of this request; None if it needs none."""
    key: ApiKey | None = g.get("api_key")
    return key


def current_quota() -> Quota:
    """The quota of this request."""
    key = current_key()
    return NO_QUOTA if key is None else key.quota


def quota_exceeded(used_up: QuotaUsedUp) -> QuotaExceeded:
    """The error for a request whose API key has used up its quota."""
    note_quota_left(used_up.left)
    quota = current_quota()
    limits = [
        f"{limit} {unit} per minute"
        for limit, unit in (
            (quota.requests_per_minute, "requests"),
            (quota.bytes_per_minute, "bytes of work"),
        )
        if limit is not None
    ]
    return QuotaExceeded(
        f"Your key's quota of {' and '.join(limits)} is used up; "
        "try again after Retry-After seconds.",
        retry_after_s=used_up.wait_s,
    )


def note_quota_left(left: QuotaLeft | None) -> None:
    """Keep what is left for `rate_limit_headers`."""
    g.quota_left = left


def rate_limit_headers() -> dict[str, str]:
    """The headers that tell this request's quota and what is left of it; none without a quota."""
    left: QuotaLeft | None = g.get("quota_left")
    if left is None:
        return {}
    policies, states = zip(*_buckets(current_quota(), left), strict=True)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _buckets(quota: Quota, left: QuotaLeft) -> Iterator[tuple[str, str]]:
    """Policy and state of each bucket; `t` is the time until it is full again."""
    for name, limit, remaining, unit in (
        ("requests", quota.requests_per_minute, left.requests, ""),
        ("bytes", quota.bytes_per_minute, left.bytes, ';qu="content-bytes"'),
    ):
        if limit is not None:
            full_s = round((limit - remaining) * _WINDOW_S / limit)
            yield (
                f'"{name}";q={limit};w={_WINDOW_S}{unit}',
                f'"{name}";r={max(remaining, 0)};t={full_s}',
            )
