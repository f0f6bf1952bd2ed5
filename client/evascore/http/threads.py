"""Runs calls in daemon threads, which never keep the program from ending."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class DaemonPool(Generic[T]):
    """Runs calls in a fixed number of daemon threads.

    Python waits at exit for the threads of `concurrent.futures`. After Ctrl-C that could take as
    long as a request does.
    """

    def __init__(self, num_threads: int) -> None:
        """Start the threads."""
        self._waiting: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
        self._num_threads = num_threads
        for _ in range(num_threads):
            threading.Thread(target=self._work, name="evascore", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call`; a thread sets the future to its result or its exception."""
        future = Future[T]()
        self._waiting.put((future, call))
        return future

    def close(self) -> None:
        """Drop the calls that wait; each thread ends after the call that it is running."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        for _ in range(self._num_threads):
            self._waiting.put(None)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            future, call = waiting
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where the result is taken
                future.set_exception(error)


def results_of(calls: Iterable[Callable[[], T]], num_threads: int) -> Iterator[T]:
    """Run all calls, some at once, and yield their results in order; raise the first exception."""
    pool = DaemonPool[T](num_threads)
    try:
        waiting = deque(map(pool.submit, calls))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close()
