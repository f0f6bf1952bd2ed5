"""Lets requests wait for changes of jobs and batches, with one thread and one Redis connection.

Redis publishes a job's end on a channel with the name of its record, and a batch's changes on a
channel with the name of its key. A restarted Redis has no subscribers, and what happens meanwhile
reaches nobody. So each confirmed subscription, first or renewed, makes its waiters read again.
"""

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contract import keys
from contract.errors import BrokerUnavailable
from contract.logs import get_logger
from contract.messages import Record
from contract.settings import Settings
from contract.store.job_store import JobStore

log = get_logger(__name__)

RECONNECT_S = 0.2
# A connection that was silent for this long must answer a PING within `redis_timeout_s`. A network
# can drop a connection without a word, and may even answer the keepalive of TCP itself.
PING_AFTER_S = 1.0

_OWN_CHANNEL = "evascore:web"

Inbox = SimpleQueue[None]
_Found = TypeVar("_Found")


class ChangeListener:
    """Wakes threads that wait for a job or a batch to change; the number of waiters is limited."""

    def __init__(self, settings: Settings, jobs: JobStore) -> None:
        """Start listening; `close` ends it."""
        self._jobs = jobs
        self._slots = threading.BoundedSemaphore(settings.max_waiters)
        self.is_released = False
        """Whether the process is stopping, so that no request may wait."""
        # The listening thread alone uses these.
        self._inboxes: defaultdict[bytes, set[Inbox]] = defaultdict(set)
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._sending = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._listening = self._loop.create_task(self._listen(settings))
        self._thread = threading.Thread(target=self._run, name="change-listener", daemon=True)
        self._thread.start()

    def wait(self, record: Record, timeout_s: float) -> Record:
        """The record of the job once it is final, or as it is after `timeout_s` seconds.

        Returns `record` at once if it is final or if the limit of waiters is reached.

        Raises:
            JobGone, BrokerUnavailable
        """
        return self.wait_for(
            keys.record(record.task_id),
            record,
            read=lambda: self._jobs.read(record.task_id),
            is_changed=lambda found: found.is_final,
            timeout_s=timeout_s,
        )

    def wait_for(
        self,
        channel: str,
        known: _Found,
        *,
        read: Callable[[], _Found],
        is_changed: Callable[[_Found], bool],
        timeout_s: float,
    ) -> _Found:
        """What `read` gives once `is_changed` of it, or at the latest after `timeout_s` seconds.

        Returns `known` at once if it is changed or if the limit of waiters is reached.

        Args:
            channel: whatever is published there makes the waiter read again.

        Raises:
            BrokerUnavailable, and what `read` raises
        """
        if is_changed(known) or timeout_s <= 0 or self.is_released:
            return known
        if not self._slots.acquire(blocking=False):
            return known
        until = time.monotonic() + timeout_s
        try:
            with self.subscribed(channel) as inbox:
                return self._wait(known, inbox, read, is_changed, until)
        finally:
            self._slots.release()

    @contextmanager
    def subscribed(self, channel: str) -> Iterator[Inbox]:
        """An inbox that gets an entry at first and whenever there may be a change."""
        name, inbox = channel.encode(), Inbox()
        try:
            self._call(self._add(name, inbox))
            yield inbox
        finally:
            self._call(self._remove(name, inbox))

    def release(self) -> None:
        """End all waits with what is known, and refuse new ones: the process is stopping."""
        self.is_released = True
        self._loop.call_soon_threadsafe(self._wake_all)

    def close(self) -> None:
        """End the listening thread; no request may wait afterwards."""
        self._loop.call_soon_threadsafe(self._listening.cancel)
        self._thread.join()

    def _wait(
        self,
        known: _Found,
        inbox: Inbox,
        read: Callable[[], _Found],
        is_changed: Callable[[_Found], bool],
        until: float,
    ) -> _Found:
        pause_s = math.inf
        while not is_changed(known) and not self.is_released:
            remaining_s = max(until - time.monotonic(), 0)
            with suppress(Empty):
                inbox.get(timeout=min(remaining_s, pause_s))
            is_over = time.monotonic() >= until
            try:
                known = read()
            except BrokerUnavailable:
                if is_over:
                    raise
                # A Redis that has just started does not serve its keys at once.
                pause_s = RECONNECT_S
                continue
            if is_over:
                break
            pause_s = math.inf
        return known

    # --- in the listening thread ------------------------------------------------------------

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._listening)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _add(self, channel: bytes, inbox: Inbox) -> None:
        self._inboxes[channel].add(inbox)
        await self._subscribe_as_needed(channel)

    async def _remove(self, channel: bytes, inbox: Inbox) -> None:
        self._inboxes[channel].discard(inbox)
        if not self._inboxes[channel]:
            del self._inboxes[channel]
        await self._subscribe_as_needed(channel)

    async def _subscribe_as_needed(self, channel: bytes) -> None:
        async with self._sending:
            if self._pubsub is None:
                return  # the next connection subscribes to all channels
            change = self._pubsub.subscribe
            if channel not in self._inboxes:
                change = self._pubsub.unsubscribe
            # The listener meets the same error and reconnects.
            with suppress(redis.RedisError, OSError):
                await change(channel)

    async def _listen(self, settings: Settings) -> None:
        while True:
            try:
                # A client that failed to connect once cannot be used again (redis-py 8.1).
                async with redis.asyncio.Redis.from_url(
                    settings.redis,
                    socket_connect_timeout=settings.redis_timeout_s,
                    # Reconnecting is done here, so that every waiter reads again.
                    retry=Retry(NoBackoff(), 0, supported_errors=()),
                ) as client:
                    await self._listen_once(client, settings.redis_timeout_s)
            except (redis.RedisError, OSError) as error:
                log.warning("change_listener_disconnected", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen_once(self, client: "redis.asyncio.Redis", answer_limit_s: float) -> None:
        async with client.pubsub() as pubsub:
            async with self._sending:
                # There is always one channel, so that there is a connection to read from.
                await pubsub.subscribe(_OWN_CHANNEL, *self._inboxes)
                self._pubsub = pubsub
            try:
                while True:
                    self._tell(await self._next_message(pubsub, answer_limit_s))
            finally:
                self._pubsub = None

    async def _next_message(
        self, pubsub: "redis.asyncio.client.PubSub", answer_limit_s: float
    ) -> Mapping[str, Any]:
        """The next message, which may be the answer to a PING.

        Raises:
            redis.TimeoutError: the connection is dead.
        """
        message = await pubsub.get_message(timeout=PING_AFTER_S)
        if message is None:
            async with self._sending:
                await pubsub.ping()
            message = await pubsub.get_message(timeout=answer_limit_s)
        if message is None:
            raise redis.TimeoutError(f"no answer to a PING within {answer_limit_s:g} s")
        return cast(Mapping[str, Any], message)

    def _tell(self, message: Mapping[str, Any]) -> None:
        if message["type"] in ("message", "subscribe"):
            for inbox in self._inboxes.get(message["channel"], ()):
                inbox.put(None)

    def _wake_all(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(None)
