"""Defines API keys: what is kept of a key, and how a token is made and checked.

A token is `evs_<key ID>_<secret>`. It is shown once, when it is made; only its SHA-256 is kept. The
secret has 192 random bits, so a slow hash would protect nothing.
"""

import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Literal, get_args

import orjson
from pydantic import TypeAdapter, ValidationError

from contract.versions import wrong_fields

Scope = Literal["score", "bulk", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`score`: single requests; `bulk`: batches; `metrics`: figures of the service; `admin`: all."""

MAX_NAME_CHARS = 64
# The last second that a date can be shown for, at the end of the year 9999.
MAX_TIME = 253_402_300_799
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.@-]{{0,{MAX_NAME_CHARS - 1}}}")
_TOKEN = re.compile(r"evs_([a-z0-9]{12})_([A-Za-z0-9_-]{32})")
_NO_HASH = "0" * 64


class NotAKey(ValueError):
    """What was given is no entry of a key."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one owner may do; the buckets of all its keys are the same."""

    owner: str = ""
    """'' for requests without a key, which have no quota."""
    requests_per_minute: int | None = None
    bytes_per_minute: int | None = None
    queue_share: float = 1.0

    @property
    def is_limited(self) -> bool:
        """Whether requests are counted at all."""
        return self.requests_per_minute is not None or self.bytes_per_minute is not None


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of one key. Keys with the same name belong to the same owner."""

    id: str
    name: str
    """Names the owner; tasks, batches and quotas belong to it, also after a rotation."""
    sha256: str
    """Of the token, in hexadecimal digits."""
    scopes: tuple[Scope, ...]
    created_at: float
    """Unix time, seconds."""
    expires_at: float | None = None
    """Unix time, seconds; None for a key that does not expire."""
    requests_per_minute: int | None = None
    """Quota; None for no limit."""
    bytes_per_minute: int | None = None
    """Quota of bytes of work; None for no limit."""
    queue_share: float = 1.0
    """Largest share, above 0 and at most 1: of the queue for its jobs, of Redis for its files."""

    @property
    def quota(self) -> Quota:
        """What its owner may do."""
        return Quota(self.name, self.requests_per_minute, self.bytes_per_minute, self.queue_share)

    def is_valid(self, now: float) -> bool:
        """Whether it has not expired at the Unix time `now`."""
        return self.expires_at is None or now < self.expires_at

    def allows(self, scope: Scope) -> bool:
        """Whether requests of this kind may use it."""
        return scope in self.scopes or "admin" in self.scopes

    def encode(self) -> bytes:
        """The key as it is stored, and as a line of a file of keys."""
        return orjson.dumps(asdict(self))


_KEY = TypeAdapter(ApiKey)


def decode_key(raw: bytes | str) -> ApiKey:
    """The reverse of `ApiKey.encode`; fields of a later release are dropped. Raises: NotAKey."""
    try:
        key = _KEY.validate_json(raw)
    except ValidationError as error:
        fields = wrong_fields(error) or "not a JSON object"
        raise NotAKey(f"wrong or missing: {fields}") from None
    check_key(key)
    return key


def check_key(key: ApiKey) -> None:
    """Check the values of a key. Raises: NotAKey, with the value and what it must be."""
    if not _NAME.fullmatch(key.name):
        raise NotAKey(
            f"the name {key.name!r} must have 1 to {MAX_NAME_CHARS} letters, digits or _.@-, "
            "and begin with a letter or digit"
        )
    if not key.scopes:
        raise NotAKey(f"a key needs at least one scope of {', '.join(SCOPES)}")
    if not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
        raise NotAKey("sha256 must have 64 hexadecimal digits")
    for quota in (key.requests_per_minute, key.bytes_per_minute):
        if quota is not None and quota < 1:
            raise NotAKey(f"a quota per minute must be at least 1, not {quota}")
    if key.expires_at is not None and not 0 <= key.expires_at <= MAX_TIME:
        raise NotAKey(
            f"expires_at must be a Unix time before the year 10000, not {key.expires_at:g}"
        )
    if not 0 < key.queue_share <= 1:
        raise NotAKey(f"the queue share must be above 0 and at most 1, not {key.queue_share:g}")


def new_key(name: str, scopes: Iterable[Scope], **limits: Any) -> tuple[str, ApiKey]:
    """A new key and its token, which is kept nowhere.

    Args:
        limits: `expires_at`, `requests_per_minute`, `bytes_per_minute`, `queue_share`.

    Raises:
        NotAKey
    """
    key_id = secrets.token_hex(6)
    token = f"evs_{key_id}_{secrets.token_urlsafe(24)}"
    key = ApiKey(
        id=key_id,
        name=name,
        sha256=_digest(token),
        scopes=tuple(scope for scope in SCOPES if scope in set(scopes)),
        created_at=time.time(),
        **limits,
    )
    check_key(key)
    return token, key


def rotated(key: ApiKey) -> tuple[str, ApiKey]:
    """A new key with the owner, scopes and limits of `key`, and its token."""
    token, new = new_key(key.name, key.scopes)
    return token, replace(key, id=new.id, sha256=new.sha256, created_at=new.created_at)


def id_of_token(token: str) -> str | None:
    """The ID in a token; None if it does not have the form of one."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def is_token_of(token: str, key: ApiKey | None) -> bool:
    """Whether the token is that of the key; the time that it takes reveals nothing."""
    return hmac.compare_digest(_digest(token), _NO_HASH if key is None else key.sha256)


def _digest(token: str) -> str:
    return sha256(token.encode(errors="surrogateescape")).hexdigest()
