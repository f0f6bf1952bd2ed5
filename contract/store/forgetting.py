"""Has Redis rewrite its append-only file, so that no file keeps what was deleted or has expired.

The append-only file lists all commands, with texts and results, until it is rewritten from the keys
that are left. The scripts that delete something of a user note the time of the first deletion.
Keys that expire are noticed by the counter of Redis. When the note is three quarters of
EVASCORE_FORGET_S old, a rewrite begins; the last quarter is for the rewrite and for another try.
Every web server does this, because workers may be scaled to zero. Several do not hinder each other.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis

from contract import keys
from contract.logs import get_logger
from contract.store.connection.scripts import register

log = get_logger(__name__)

# At this share of the time a rewrite begins.
BEGINS_AT = 0.75
# A rewrite that Redis refused is asked for again after this share of the time.
_RETRY_AT = 0.05


class Forgetting:
    """Watches what is deleted and begins the rewrites; Redis errors reach the caller."""

    def __init__(
        self,
        client: redis.Redis,
        forget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._forget_s, self._clock = client, forget_s, clock
        self._look, self._begin = (
            register(client, name) for name in ("look_at_forgetting", "begin_forgetting")
        )
        self._may_begin_at = -math.inf

    def run(self) -> None:
        """Begin a rewrite if it is due, or note how the one that ran has ended."""
        with self._client.pipeline(transaction=False) as pipe:
            # In this order: a rewrite that was noted here began before Redis reported it.
            pipe.get(keys.REWRITING).info("server", "stats", "persistence")
            rewriting, info = pipe.execute()
        if not info.get("aof_enabled"):
            return
        of_run = info["run_id"]
        state = _rewrite_state(info)
        if rewriting is not None and rewriting.split()[1].decode() != of_run and state == "ok":
            # It died with the server that ran it.
            state = "failed"
        found = self._look(
            keys=[keys.FORGETTABLE_SINCE, keys.REWRITING, keys.EXPIRED],
            args=[
                f"{of_run} {info['expired_keys']}",
                rewriting or b"",
                state,
                self._forget_s * BEGINS_AT,
            ],
        )
        if found == b"due" and self._clock() >= self._may_begin_at:
            self._begin_rewrite(of_run)
        elif found == b"forgotten":
            log.info("append_only_file_rewritten", bytes=info["aof_current_size"])
        elif found == b"failed":
            self._pause("failed")

    def _begin_rewrite(self, of_run: str) -> None:
        with self._client.pipeline() as pipe:
            self._begin(keys=[keys.FORGETTABLE_SINCE, keys.REWRITING], args=[of_run], client=pipe)
            pipe.bgrewriteaof()
            try:
                has_begun, answer = pipe.execute(raise_on_error=False)
            except redis.ResponseError as error:
                # The user of Redis may not run the command: nothing was done.
                self._pause(type(error).__name__)
                return
        if isinstance(has_begun, redis.RedisError):
            raise has_begun
        if has_begun and isinstance(answer, redis.RedisError):
            rewriting = self._client.get(keys.REWRITING) or b""
            self._look(
                keys=[keys.FORGETTABLE_SINCE, keys.REWRITING, keys.EXPIRED],
                args=[self._client.get(keys.EXPIRED), rewriting, "failed", math.inf],
            )
            self._pause(type(answer).__name__)

    def _pause(self, reason: str) -> None:
        self._may_begin_at = self._clock() + self._forget_s * _RETRY_AT
        log.warning("append_only_file_not_rewritten", reason=reason)


def _rewrite_state(info: Mapping[str, Any]) -> str:
    """Tell whether a rewrite runs, and otherwise how the last one ended."""
    if info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
        return "running"
    return "ok" if info["aof_last_bgrewrite_status"] == "ok" else "failed"
