"""Lets requests wait for changes of jobs and batches, with one Redis connection.

Redis publishes the final record of a job on a channel with the name of the record. It publishes the
changes of a batch on a channel with the name of its key. One pattern for each covers all of them,
so that a wait sends no command. A restarted Redis has no subscribers, and what happens meanwhile
reaches nobody. So each subscription, first or renewed, makes all waiters read again.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.service.callers import Caller
from app.service.shared_reads import SharedReads
from app.service.slots import ConnectionSlots
from contract import keys
from contract.errors import BrokerUnavailable
from contract.logs import get_logger
from contract.messages import Record, decode_record
from contract.settings import Settings
from contract.store.jobs.job_store import JobStore
from contract.versions import NewerFormat, Unreadable

log = get_logger(__name__)

RECONNECT_S = 0.2
_CHECK = "EVASCORE_REDIS_URL, if this lasts; the web server keeps retrying"
# A connection that was silent for this long must answer a PING within `redis_timeout_s`. A network
# can drop a connection without a word, and may even answer the keepalive of TCP itself.
PING_AFTER_S = 1.0
# A client that hangs up gives its slot back within this time.
LOOK_EVERY_S = 1.0
# A batch may change many times a second.
MIN_PAUSE_S = 0.25

_PATTERNS = (keys.record("*"), keys.batch("*"))

_Found = TypeVar("_Found")


def _any_message(_message: bytes) -> bool:
    return True


class Inbox(threading.Event):
    """Is set whenever there may be a change."""

    def __init__(self, concerns: Callable[[bytes], bool] = _any_message) -> None:
        """Take the messages that `concerns` is true of."""
        super().__init__()
        self.concerns = concerns
        self.published = b""
        """The last message that it took; b'' if none came."""


class ChangeListener:
    """Wakes requests that wait for a job or a batch to change; the number of waits is limited."""

    def __init__(self, settings: Settings, jobs: JobStore) -> None:
        """Start listening; `close` ends it."""
        self._jobs = jobs
        self._settings = settings
        self.slots = ConnectionSlots(settings.max_waiters, "waits for results")
        self.is_released = False
        """Whether the process is stopping, so that no request may wait."""
        self._inboxes: defaultdict[bytes, set[Inbox]] = defaultdict(set)
        self._reads = SharedReads()
        self._lock = threading.Lock()
        self._is_away = False
        """Whether Redis was away when the listener last tried it."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="change-listener", daemon=True)
        self._thread.start()

    def wait(
        self,
        record: Record,
        timeout_s: float,
        caller: Caller,
        *,
        has_slot: bool = False,
        inbox: Inbox | None = None,
    ) -> Record:
        """The record of the job once it is final, or as it is after `timeout_s` seconds.

        Returns `record` at once if it is final or if `caller` has no slot and gets none.

        Args:
            inbox: as `subscribed` gave it for this job before the job was submitted.

        Raises:
            JobGone, BrokerUnavailable
        """
        task_id = record.task_id
        return self.wait_for(
            keys.record(task_id),
            record,
            read=lambda message: _record_in(task_id, message) or self._jobs.read(task_id),
            is_changed=lambda found: found.is_final,
            timeout_s=timeout_s,
            caller=caller,
            has_slot=has_slot,
            inbox=inbox,
        )

    def wait_for(
        self,
        channel: str,
        known: _Found,
        *,
        read: Callable[[bytes], _Found],
        is_changed: Callable[[_Found], bool],
        timeout_s: float,
        caller: Caller,
        has_slot: bool = False,
        inbox: Inbox | None = None,
        concerns: Callable[[bytes], bool] = _any_message,
    ) -> _Found:
        """What `read` gives once `is_changed` of it, or at the latest after `timeout_s` seconds.

        Returns `known` at once if it is changed or if `caller` gets no slot, and soon after
        `caller` has left.

        Args:
            channel: what is published there makes the waiter read again.
            read: takes the message that was published, b'' if there is none.
            has_slot: `caller` holds one of `slots` already.
            inbox: one of this channel that is subscribed already.
            concerns: whether a message may tell of a change; the waiter sleeps through others.

        Raises:
            BrokerUnavailable, and what `read` raises
        """
        if is_changed(known) or timeout_s <= 0 or self.is_released:
            return known
        if not has_slot and not self.slots.take(caller.client):
            return known
        until = time.monotonic() + timeout_s
        try:
            if inbox is not None:
                return self._wait(known, inbox, read, is_changed, until, caller)
            with self.subscribed(channel, concerns=concerns) as new_inbox:
                return self._wait(known, new_inbox, read, is_changed, until, caller)
        finally:
            if not has_slot:
                self.slots.release(caller.client)

    @contextmanager
    def subscribed(
        self,
        channel: str,
        *,
        may_have_changed: bool = True,
        concerns: Callable[[bytes], bool] = _any_message,
    ) -> Iterator[Inbox]:
        """An inbox that is set whenever there may be a change, at first if one may have come."""
        name, inbox = channel.encode(), Inbox(concerns)
        if may_have_changed:
            inbox.set()
        with self._lock:
            self._inboxes[name].add(inbox)
        try:
            yield inbox
        finally:
            with self._lock:
                self._inboxes[name].discard(inbox)
                if not self._inboxes[name]:
                    del self._inboxes[name]
                    self._reads.forget(name)

    def read_shared(self, channel: str, read: Callable[[], _Found]) -> _Found:
        """What `read` gives, or gave another caller since the last message on `channel`.

        Args:
            channel: the caller has an inbox of it, and all callers read the same thing.
            read: nothing that it gave is used for longer than `MAX_AGE_S`.

        Raises:
            what `read` raises
        """
        return self._reads.read(channel.encode(), read)

    def release(self) -> None:
        """End all waits with what is known, and refuse new ones: the process is stopping."""
        self.is_released = True
        self._wake_all()

    def close(self) -> None:
        """End the listening thread; no request may wait afterwards."""
        self._closing.set()
        self._thread.join()

    def _wait(
        self,
        known: _Found,
        inbox: Inbox,
        read: Callable[[bytes], _Found],
        is_changed: Callable[[_Found], bool],
        until: float,
        caller: Caller,
    ) -> _Found:
        retry_s, is_first = math.inf, True
        while not is_changed(known) and not self.is_released:
            remaining_s = max(until - time.monotonic(), 0)
            may_have_changed = inbox.wait(min(remaining_s, retry_s, LOOK_EVERY_S))
            is_over = time.monotonic() >= until
            if not may_have_changed and not is_over and retry_s == math.inf:
                if caller.has_left():
                    break
                continue
            inbox.clear()
            message, inbox.published = inbox.published, b""
            try:
                known = read(message)
            except BrokerUnavailable:
                if is_over or caller.has_left():
                    raise
                # A Redis that has just started does not serve its keys at once.
                retry_s = min(2 * retry_s, LOOK_EVERY_S) if retry_s < math.inf else RECONNECT_S
                continue
            if is_over:
                break
            # The first one is for what changed before it was subscribed.
            if not (is_first or is_changed(known)):
                time.sleep(MIN_PAUSE_S)
            retry_s, is_first = math.inf, False
        return known

    # --- in the listening thread ------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                if not self._is_away:
                    log.warning("redis_away", error=type(error).__name__, check=_CHECK)
                self._is_away = True
            self._closing.wait(RECONNECT_S)

    def _listen(self) -> None:
        limit_s = self._settings.redis_timeout_s
        with redis.Redis.from_url(
            self._settings.redis,
            socket_connect_timeout=limit_s,
            socket_timeout=limit_s,
            # Reconnecting is done here, so that every waiter reads again.
            retry=Retry(NoBackoff(), 0, supported_errors=()),
        ) as client:
            pool = client.connection_pool
            # Version 2, whatever the URL asks for, gives messages as lists in the order in which
            # they came. redis-py's PubSub takes twice the CPU time for each.
            connection = pool.connection_class(**pool.connection_kwargs | {"protocol": 2})
            try:
                connection.send_command("PSUBSCRIBE", *_PATTERNS)
                while not self._closing.is_set():
                    self._tell(_next_message(connection, limit_s))
            finally:
                connection.disconnect()

    def _tell(self, message: Sequence[Any]) -> None:
        if message[0] == b"pmessage":
            self._wake(*message[2:])
        elif message[0] == b"psubscribe":
            self._is_away = False
            self._wake_all()

    def _wake(self, channel: bytes, message: bytes) -> None:
        with self._lock:
            self._reads.expire(channel)
            for inbox in self._inboxes.get(channel, ()):
                if inbox.concerns(message):
                    inbox.published = message
                    inbox.set()

    def _wake_all(self) -> None:
        with self._lock:
            self._reads.expire_all()
            for inboxes in self._inboxes.values():
                for inbox in inboxes:
                    inbox.set()


def _record_in(task_id: str, message: bytes) -> Record | None:
    """The record that `message` holds; None if it has to be read from Redis."""
    try:
        return decode_record(task_id, message) if message else None
    except (Unreadable, NewerFormat):
        return None


def _next_message(connection: Any, answer_limit_s: float) -> Sequence[Any]:
    """The next message, which may be the answer to a PING.

    Raises:
        redis.TimeoutError: the connection is dead.
    """
    try:
        return _read_message(connection, PING_AFTER_S)
    except redis.TimeoutError:
        connection.send_command("PING")
        return _read_message(connection, answer_limit_s)


def _read_message(connection: Any, limit_s: float) -> Sequence[Any]:
    message = connection.read_response(timeout=limit_s, disconnect_on_error=False)
    return cast(Sequence[Any], message)
