"""Runs the operations of the synchronous client, with httpx, and threads for parallel requests."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import httpx

from evascore.connections import Connections, check_process
from evascore.http import transport
from evascore.http.network import Network
from evascore.http.threads import DaemonPool
from evascore.operations.steps import Pause, Reply, Send, Step, Steps

T = TypeVar("T")
Part = TypeVar("Part")


class SyncDriver:
    """Sends requests and sleeps for one `Client`; `AsyncDriver` has the same methods."""

    def __init__(
        self,
        url: httpx.URL,
        http: httpx.Client | None,
        headers: dict[str, str],
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Keep the URL and the headers of every request; connect to nothing.

        Raises:
            NetworkInvalid: a variable of the shell names a proxy or certificates in a wrong way.
        """
        self._url, self._headers, self._on_wait = url, headers, on_wait
        network = Network() if http else transport.network_of(url, headers)
        self._via = network.via

        def open_connections() -> httpx.Client:
            return httpx.Client(limits=transport.LIMITS, **network.options())

        self._connections = Connections(open_connections, http)

    def close(self) -> None:
        """Close all connections."""
        if (http := self._connections.close()) is not None:
            http.close()

    def run(self, steps: Steps[T]) -> T:
        """Run the steps of an operation and return its result."""
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = self._do(step)

    def in_order(
        self, begin: Callable[[Part], Steps[T]], parts: Iterable[Part], concurrency: int
    ) -> Iterator[T]:
        """Run one operation for each part and yield the results in the order of the parts.

        Args:
            begin: makes the operation of a part; called when a thread takes the part.
            parts: read as they are needed.
            concurrency: how many operations run at once, each in a thread.

        Raises:
            ValueError: concurrency is below 1.
            ClientNotUsable: the process was forked meanwhile, and this is the child.
        """
        transport.check_concurrency(concurrency)
        waiting: deque[Future[T]] = deque()
        pid = os.getpid()
        pool = DaemonPool[T](concurrency)
        try:
            for part in parts:
                waiting.append(pool.submit(partial(self._begin_and_run, begin, part)))
                # As many again wait their turn, so that one slow part idles no thread.
                if len(waiting) == 2 * concurrency:
                    yield waiting.popleft().result()
                    check_process(pid)
            while waiting:
                yield waiting.popleft().result()
                check_process(pid)
        finally:
            pool.close()

    def _begin_and_run(self, begin: Callable[[Part], Steps[T]], part: Part) -> T:
        return self.run(begin(part))

    def _do(self, step: Step) -> Reply:
        if isinstance(step, Pause):
            if step.reason and self._on_wait is not None:
                self._on_wait(step.reason)
            time.sleep(step.seconds)
            return None
        http = self._connections.here()
        try:
            return transport.answer_of(self._sent(http, step), self._via)
        except Exception as error:
            if not transport.is_lost(error):
                raise
            return transport.lost_of(error, self._url, self._via)

    def _sent(self, http: httpx.Client, step: Send) -> httpx.Response:
        """Send a request and read the whole response, within the time limit of the step.

        A header that comes byte by byte may take longer: httpx begins its time limit again with
        each byte, and calls nothing of ours before the header is complete.
        """
        ends_at = time.monotonic() + step.limit_s
        options = transport.request_options(self._url, step, self._headers)
        content = step.body if isinstance(step.body, bytes) else _sent_until(ends_at, step.body())
        with http.stream(**options, content=content) as response:
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = _ReadUntil(ends_at, response.stream)
            response.read()
        return response


def _sent_until(ends_at: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a body, as long as it is not later than `ends_at`."""
    for chunk in chunks:
        if time.monotonic() > ends_at:
            raise httpx.WriteTimeout("the request took too long to send")
        yield chunk


class _ReadUntil(httpx.SyncByteStream):
    """The bytes of a response, as long as it is not later than `ends_at`."""

    def __init__(self, ends_at: float, stream: httpx.SyncByteStream) -> None:
        self._ends_at, self._stream = ends_at, stream

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._ends_at:
                raise httpx.ReadTimeout("the response took too long")
            yield chunk

    def close(self) -> None:
        """Close the connection, or give it back if all is read."""
        self._stream.close()
