"""Finds the API key of a token, with at most one look at Redis and the file per second."""

import threading
import time
from collections.abc import Callable

import redis

from contract.api_keys import ApiKey, NotAKey, id_of_token, is_token_of
from contract.errors import BrokerUnavailable, Unauthorized
from contract.keys_file import read_keys_file
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.key_store import KeyStore

log = get_logger(__name__)

# A key that is made or revoked is known to every web server within this time.
MAX_AGE_S = 1.0


class KeyRing:
    """All keys of Redis and of the file, as they were up to `MAX_AGE_S` ago."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._store = KeyStore(client)
        self._file = settings.keys_file
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        # None until Redis has answered once.
        self._stored: dict[str, ApiKey] | None = None
        # None until the file could be read once.
        self._of_file: dict[str, ApiKey] | None = None
        self._file_changed_at = 0.0
        self._file_problem = ""

    def find(self, token: str, now: Callable[[], float] = CLOCK.now) -> ApiKey:
        """The valid key of a token.

        Raises:
            Unauthorized
            BrokerUnavailable: it is not a key of the file, and Redis did not answer since this
                process started.
        """
        self._refresh()
        key_id = id_of_token(token) or ""
        key = (self._of_file or {}).get(key_id) or (self._stored or {}).get(key_id)
        if key_id and key is None and self._stored is None:
            raise BrokerUnavailable("Redis does not answer; try again.")
        if not is_token_of(token, key) or key is None:
            raise Unauthorized("This API key is not known; check it, or ask the operator for one.")
        if not key.is_valid(now()):
            raise Unauthorized("This API key has expired; ask the operator for a new one.")
        return key

    def _refresh(self) -> None:
        if time.monotonic() < self._read_at + MAX_AGE_S:
            return
        with self._lock:
            if time.monotonic() < self._read_at + MAX_AGE_S:
                return
            self._refresh_file()
            self._refresh_stored()
            self._read_at = time.monotonic()

    def _refresh_stored(self) -> None:
        try:
            # Expiry depends on the time, and no other route may have asked for it.
            self._store.note_time()
            stored = {key.id: key for key in self._store.all()}
        except redis.RedisError as error:
            # Those that are known stay valid: without Redis no request has an effect anyway.
            log.warning("keys_unreadable", error=type(error).__name__)
            return
        if self._stored is not None:
            _log_changes(self._stored, stored)
        self._stored = stored

    def _refresh_file(self) -> None:
        """Read the file again if it changed; a file that is broken now changes nothing."""
        path = self._file
        if path is None:
            return
        try:
            changed_at = path.stat().st_mtime
            if changed_at != self._file_changed_at:
                of_file = {key.id: key for key in read_keys_file(path)}
                if self._of_file is not None:
                    _log_changes(self._of_file, of_file)
                self._of_file, self._file_changed_at = of_file, changed_at
        except (OSError, NotAKey) as error:
            if str(error) != self._file_problem:
                log.error("keys_file_unreadable", reason=str(error))
            self._file_problem = str(error)
        else:
            self._file_problem = ""


def _log_changes(before: dict[str, ApiKey], after: dict[str, ApiKey]) -> None:
    """Log each key that was added, changed or removed, by any program."""
    for key_id in sorted(before.keys() | after.keys()):
        old, new = before.get(key_id), after.get(key_id)
        if old == new:
            continue
        key = new or old
        assert key is not None
        log.info(
            "key_added" if old is None else "key_removed" if new is None else "key_changed",
            key_id=key_id,
            client=key.name,
            scopes=key.scopes,
            expires_at=key.expires_at,
        )
