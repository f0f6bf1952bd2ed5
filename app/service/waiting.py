"""Requests that wait for news: one thread and one Redis connection for all of them.

A job's end is published on the channel named like its record, a batch's news on that of its key.
Redis forgets who listened when it restarts, and publishes to nobody what happens meanwhile; so each
confirmed subscription, the first and every renewed one, makes its waiters look again.
"""

import asyncio
import math
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

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
# A connection that nobody reset, such as to a machine that vanished, is found dead in about 10 s.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 4, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}

_OWN_CHANNEL = "evascore:web"

Inbox = SimpleQueue[None]
_Found = TypeVar("_Found")


class JobEndings:
    """Lets a bounded number of threads wait for jobs to end, and others hear of news."""

    def __init__(self, settings: Settings, store: JobStore) -> None:
        """Start listening; `close` ends it."""
        self._store = store
        self._slots = threading.BoundedSemaphore(settings.max_waiters)
        self.is_released = False
        """Whether the process is stopping and nobody shall wait any more."""
        # Of the listening thread alone.
        self._inboxes: defaultdict[bytes, set[Inbox]] = defaultdict(set)
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._sending = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._listening = self._loop.create_task(self._listen(settings))
        self._thread = threading.Thread(target=self._run, name="job-endings", daemon=True)
        self._thread.start()

    def wait(self, record: Record, timeout_s: float) -> Record:
        """The record of the job once it is final, or as it is after `timeout_s` seconds.

        Returns `record` at once if it is final or if all places to wait are taken.

        Raises:
            JobGone, BrokerUnavailable
        """
        return self.wait_for(
            keys.record(record.task_id),
            record,
            look=lambda: self._store.read(record.task_id),
            is_news=lambda found: found.is_final,
            timeout_s=timeout_s,
        )

    def wait_for(
        self,
        channel: str,
        known: _Found,
        *,
        look: Callable[[], _Found],
        is_news: Callable[[_Found], bool],
        timeout_s: float,
    ) -> _Found:
        """What `look` finds once that is news, or at the latest after `timeout_s` seconds.

        Returns `known` at once if it is news or if all places to wait are taken.

        Args:
            channel: whatever is published there makes us look again.

        Raises:
            BrokerUnavailable, and what `look` raises
        """
        if is_news(known) or timeout_s <= 0 or self.is_released:
            return known
        if not self._slots.acquire(blocking=False):
            return known
        until = time.monotonic() + timeout_s
        try:
            with self.hearing(channel) as inbox:
                return self._wait(known, inbox, look, is_news, until)
        finally:
            self._slots.release()

    @contextmanager
    def hearing(self, channel: str) -> Iterator[Inbox]:
        """An inbox that something is put into at first and whenever there may be news."""
        name, inbox = channel.encode(), Inbox()
        try:
            self._call(self._add(name, inbox))
            yield inbox
        finally:
            self._call(self._remove(name, inbox))

    def release(self) -> None:
        """Send all waiters off with what is known, and let no more in: the process is stopping."""
        self.is_released = True
        self._loop.call_soon_threadsafe(self._look_everywhere)

    def close(self) -> None:
        """End the listening thread; nobody may wait any more."""
        self._loop.call_soon_threadsafe(self._listening.cancel)
        self._thread.join()

    def _wait(
        self,
        known: _Found,
        inbox: Inbox,
        look: Callable[[], _Found],
        is_news: Callable[[_Found], bool],
        until: float,
    ) -> _Found:
        pause_s = math.inf
        while not is_news(known) and not self.is_released:
            remaining_s = max(until - time.monotonic(), 0)
            with suppress(Empty):
                inbox.get(timeout=min(remaining_s, pause_s))
            is_over = time.monotonic() >= until
            try:
                known = look()
            except BrokerUnavailable:
                if is_over:
                    raise
                # A Redis that has just started does not serve its keys yet.
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
                return  # the next connection subscribes to all
            change = self._pubsub.subscribe
            if channel not in self._inboxes:
                change = self._pubsub.unsubscribe
            # The listener meets the same error and connects anew.
            with suppress(redis.RedisError, OSError):
                await change(channel)

    async def _listen(self, settings: Settings) -> None:
        while True:
            try:
                # A client that failed to connect once is not to be used again (redis-py 8.1).
                async with redis.asyncio.Redis.from_url(
                    settings.redis,
                    socket_connect_timeout=settings.redis_timeout_s,
                    socket_keepalive=True,
                    socket_keepalive_options=_KEEPALIVE,
                    # Reconnecting is done here, so that every waiter looks again.
                    retry=Retry(NoBackoff(), 0, supported_errors=()),
                ) as client:
                    await self._listen_once(client)
            except (redis.RedisError, OSError) as error:
                log.warning("job_endings_not_heard", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen_once(self, client: "redis.asyncio.Redis") -> None:
        async with client.pubsub() as pubsub:
            async with self._sending:
                # One channel always, so that there is a connection to read from.
                await pubsub.subscribe(_OWN_CHANNEL, *self._inboxes)
                self._pubsub = pubsub
            try:
                async for message in pubsub.listen():
                    self._tell(message)
            finally:
                self._pubsub = None

    def _tell(self, message: Mapping[str, Any]) -> None:
        if message["type"] in ("message", "subscribe"):
            for inbox in self._inboxes.get(message["channel"], ()):
                inbox.put(None)

    def _look_everywhere(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(None)
