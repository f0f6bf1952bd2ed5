"""Threads for requests; whatever they wait for, the program can end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class DaemonPool(Generic[T]):
    """So many threads that work off calls; those of concurrent.futures would be waited for at exit.

    After Ctrl-C that could take as long as a request does.
    """

    def __init__(self, num_threads: int) -> None:
        """Start the threads.

        Raises:
            ValueError: there are to be none.
        """
        if num_threads < 1:
            raise ValueError("concurrency must be at least 1")
        self._waiting: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
        self._num_threads = num_threads
        for _ in range(num_threads):
            threading.Thread(target=self._work, name="evascore", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What becomes of `call` when a thread has come to it."""
        future = Future[T]()
        self._waiting.put((future, call))
        return future

    def close(self) -> None:
        """Forget the calls that wait; the threads end when they are through with theirs."""
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
