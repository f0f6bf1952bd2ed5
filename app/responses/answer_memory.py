"""Counts the memory that an answer takes until it is sent, so that unread answers stay bounded."""

from contextlib import closing
from functools import partial

from flask import Response, request

from app.requests.clients import client_of
from app.service.body_memory import UNCOUNTED_BYTES
from app.service.components import service

# A streamed answer holds about this much while it is sent: what is read at once, and its form.
STREAM_BYTES = 512 * 1024


def hold(response: Response, num_bytes: int) -> None:
    """Count `num_bytes` for the client of this request until `response` is sent or given up.

    Call it last: what is counted comes back when the server closes the response.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    if num_bytes <= UNCOUNTED_BYTES:
        return
    memory, client = service().answers, client_of(request)
    # The work for it is done, so the largest answer is sent too, if its client reads the others.
    counted = min(num_bytes, memory.share_bytes)
    memory.take(client, counted)
    response.call_on_close(partial(memory.release, client, counted))


def held(response: Response) -> Response:
    """`response`, whose body is in memory as a whole, counted as `hold` does.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    hold(response, response.content_length or 0)
    return response


def check_room(num_bytes: int) -> None:
    """Refuse a request whose answer of `num_bytes` or more would find no room now.

    Raises:
        Overloaded: answers that wait to be sent leave no room.
    """
    # Nothing is sent yet, so what `hold` counts comes back at once.
    with closing(Response()) as answer:
        hold(answer, num_bytes)
