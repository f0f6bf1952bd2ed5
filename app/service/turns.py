"""Keeps long work from holding up other requests, since one thread serves all of them."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import gevent
from gevent.threadpool import ThreadPool

# Other requests wait at most about this long for each request that works.
TURN_S = 0.002
# A smaller body is parsed and checked in a few milliseconds.
LARGE_BYTES = 256 * 1024
# Each holds a parsed body, which takes several times its size.
LARGE_AT_ONCE = 2

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def in_turns(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items, and let other requests run whenever these took `TURN_S`."""
    began_at = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() > began_at + TURN_S:
            let_others_run()
            began_at = time.perf_counter()


def let_others_run() -> None:
    """Serve other connections once, then go on.

    `gevent.sleep(0)` would look for new bytes on connections only every 50 turns. The highest
    priority keeps a busy server from putting this off for ever.
    """
    gevent.idle(gevent.get_hub().loop.MAXPRI)


class LargeWork:
    """Runs work on large bodies in threads of their own, few at once."""

    def __init__(self) -> None:
        """Prepare the threads; they start when they are needed."""
        self._threads: ThreadPool | None = None

    @staticmethod
    def is_apart(num_bytes: int) -> bool:
        """Whether `run` does work on a body of this size in another thread."""
        return num_bytes >= LARGE_BYTES

    def run(self, num_bytes: int, work: Callable[[], _Made]) -> _Made:
        """What `work` returns or raises; in another thread if it is on a large body.

        Args:
            num_bytes: the size of what `work` reads.
            work: must not use the request or the application context.
        """
        if not self.is_apart(num_bytes):
            return work()
        if self._threads is None:
            self._threads = ThreadPool(LARGE_AT_ONCE, hub=gevent.get_hub())
        made, error = self._threads.apply(_outcome, (work,))
        if error is not None:
            raise error
        assert made is not None
        return made[0]


def _outcome(work: Callable[[], _Made]) -> tuple[tuple[_Made] | None, Exception | None]:
    # Gevent would print what a thread raises, and the message may quote a text.
    try:
        return (work(),), None
    except Exception as error:  # noqa: BLE001 - raised again in the greenlet of the request
        return None, error
