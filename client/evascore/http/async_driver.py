"""Runs the operations of the asynchronous client: HTTP by httpx, tasks of one event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import httpx

from evascore.connections import Connections
from evascore.http import transport
from evascore.http.network import Network
from evascore.operations.steps import Body, Pause, Reply, Step, Steps

T = TypeVar("T")
Part = TypeVar("Part")


class AsyncDriver:
    """Sends requests and sleeps for one `AsyncClient`; `SyncDriver` has the same methods."""

    def __init__(
        self,
        url: httpx.URL,
        http: httpx.AsyncClient | None,
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

        def open_connections() -> httpx.AsyncClient:
            return _LoopConnections(limits=transport.LIMITS, **network.options())

        self._connections = Connections(open_connections, http)

    async def close(self) -> None:
        """Close all connections."""
        if (http := self._connections.close(asyncio.get_running_loop())) is not None:
            await http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps of an operation and return its result."""
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = await self._do(step)

    async def in_order(
        self, begin: Callable[[Part], Steps[T]], parts: Iterable[Part], concurrency: int
    ) -> AsyncIterator[T]:
        """Run one operation for each part and yield the results in the order of the parts.

        Args:
            begin: makes the operation of a part; called when the part's turn comes.
            parts: read as they are needed.
            concurrency: how many operations run at once.

        Raises:
            ValueError: concurrency is below 1.
        """
        transport.check_concurrency(concurrency)
        waiting: deque[asyncio.Task[T]] = deque()
        try:
            for part in parts:
                waiting.append(asyncio.create_task(self._begin_and_run(begin, part)))
                if len(waiting) == concurrency:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _begin_and_run(self, begin: Callable[[Part], Steps[T]], part: Part) -> T:
        return await self.run(begin(part))

    async def _do(self, step: Step) -> Reply:
        if isinstance(step, Pause):
            if step.reason and self._on_wait is not None:
                self._on_wait(step.reason)
            await asyncio.sleep(step.seconds)
            return None
        http = self._connections.here(asyncio.get_running_loop())
        try:
            options = transport.request_options(self._url, step, self._headers)
            async with asyncio.timeout(step.limit_s) as limit:
                response = await http.request(**options, content=_streamed(step.body))
            return transport.answer_of(response, self._via)
        except TimeoutError:
            if not limit.expired():
                raise
            return transport.lost_of(httpx.ReadTimeout(""), self._url, self._via)
        except Exception as error:
            if not transport.is_lost(error):
                raise
            return transport.lost_of(error, self._url, self._via)


class _LoopConnections(httpx.AsyncClient):
    """Closes itself when its event loop ends; nobody could close it later."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # asyncio.run ends the async generators that were begun in its loop.
        self._ending = self._until_the_loop_ends()
        with suppress(StopIteration):
            self._ending.__anext__().send(None)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.aclose()


def _streamed(body: Body) -> AsyncIterator[bytes] | bytes:
    """The body of one attempt, from its beginning."""
    return body if isinstance(body, bytes) else _as_async(body())


async def _as_async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
