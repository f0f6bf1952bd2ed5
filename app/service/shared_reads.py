"""Reads a job or batch that changed from Redis once, for all requests that follow it."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar, cast

from contract.errors import ServiceError

# What was read is shared for this long.
MAX_AGE_S = 0.25

_Found = TypeVar("_Found")


class _Latest:
    """What was read last on a channel."""

    def __init__(self) -> None:
        self.found: Any = None
        self.error: ServiceError | None = None
        self.is_old = True
        """Whether there may have been a change since."""
        self.until = math.inf
        self.turn = threading.Lock()

    def renew(self, read: Callable[[], Any]) -> None:
        # A change that comes meanwhile makes it old at once.
        self.is_old = False
        self.error = None
        try:
            self.found = read()
        except ServiceError as error:
            # Shared too: where Redis is silent, each read may take seconds.
            self.error = error
        except BaseException:
            self.is_old = True
            raise
        self.until = time.monotonic() + MAX_AGE_S


class SharedReads:
    """The last read on each channel; safe to share between threads."""

    def __init__(self) -> None:
        self._latest: defaultdict[bytes, _Latest] = defaultdict(_Latest)

    def read(self, channel: bytes, read: Callable[[], _Found]) -> _Found:
        """What `read` gives, or gave another caller a moment ago.

        Args:
            read: all callers of a channel read the same thing.

        Raises:
            what `read` raises
        """
        latest = self._latest[channel]
        with latest.turn:
            if latest.is_old or time.monotonic() > latest.until:
                latest.renew(read)
            if latest.error is not None:
                raise latest.error.with_traceback(None)
            return cast(_Found, latest.found)

    def expire(self, channel: bytes) -> None:
        """Have the next caller read again: there may be a change."""
        if channel in self._latest:
            self._latest[channel].is_old = True

    def expire_all(self) -> None:
        """Have the next caller of each channel read again."""
        for channel in list(self._latest):
            self.expire(channel)

    def forget(self, channel: bytes) -> None:
        """Drop what was read: nobody follows the channel any more."""
        self._latest.pop(channel, None)
