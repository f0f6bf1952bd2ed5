"""Counts the memory that an answer takes until it is sent, so that unread answers stay bounded."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from flask import Response, request

from app.requests.clients import client_of
from app.service.body_memory import UNCOUNTED_BYTES, BodyMemory
from app.service.callers import Caller
from app.service.components import service
from contract.errors import Overloaded

# A streamed answer holds about this much while it is sent: what is read at once, and its form.
STREAM_BYTES = 512 * 1024
# A large part of an answer is sent in pieces of this size, which alone outlive it.
_PIECE_BYTES = 64 * 1024
# An answer that waits for room looks for it this often.
_LOOK_EVERY_S = 0.1


def hold(response: Response, num_bytes: int) -> None:
    """Count `num_bytes` for the client of this request until `response` is sent or given up.

    Call it last: what is counted comes back when the server closes the response.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    # Small answers are spared what follows from a call at their end.
    if num_bytes > UNCOUNTED_BYTES:
        response.call_on_close(_taken(service().answers, client_of(request), num_bytes))


def held(response: Response) -> Response:
    """`response`, whose body is in memory as a whole, counted as `hold` does.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    hold(response, response.content_length or 0)
    return response


@contextmanager
def reserved(memory: BodyMemory, client: str, num_bytes: int) -> Iterator[None]:
    """Count `num_bytes` for `client` before its answer is made.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    release = _taken(memory, client, num_bytes)
    try:
        yield
    finally:
        release()


class PartRoom:
    """Counts each large part of a streamed answer while it is made and sent.

    Without room the first part is refused; a later one waits, as the answer has begun.
    """

    def __init__(self, memory: BodyMemory, caller: Caller) -> None:
        """Count for `caller` in `memory`."""
        self._memory, self._caller = memory, caller
        self._has_begun = False

    @contextmanager
    def reserved(self, num_bytes: int) -> Iterator[None]:
        """Count `num_bytes` for the next part.

        Raises:
            Overloaded: there is no room for the first part.
            ConnectionAbortedError: the client has left while a later one waited.
        """
        release = self._taken(num_bytes)
        self._has_begun = True
        try:
            yield
        finally:
            release()

    def _taken(self, num_bytes: int) -> Callable[[], None]:
        while True:
            try:
                return _taken(self._memory, self._caller.client, num_bytes)
            except Overloaded:
                if not self._has_begun:
                    raise
            if self._caller.has_left():
                raise ConnectionAbortedError
            time.sleep(_LOOK_EVERY_S)


def cut(part: bytes) -> Iterator[bytes]:
    """Cut a part of an answer into pieces, so that who sends them does not hold all of it."""
    for at in range(0, len(part), _PIECE_BYTES):
        yield part[at : at + _PIECE_BYTES]


def _taken(memory: BodyMemory, client: str, num_bytes: int) -> Callable[[], None]:
    """Count `num_bytes` for `client`; what is returned gives them back.

    Raises:
        Overloaded
    """
    if num_bytes <= UNCOUNTED_BYTES:
        return lambda: None
    # The largest answer is sent too, if its client reads the others.
    counted = min(num_bytes, memory.share_bytes)
    memory.take(client, counted)
    return partial(memory.release, client, counted)
