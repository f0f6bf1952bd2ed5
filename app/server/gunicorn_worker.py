"""Subclasses Gunicorn's worker: disconnects slow clients, answers malformed HTTP with problems.

It relies on Gunicorn 27's own names (`ThreadWorker.handle`, `enqueue_req`, `murder_pending`,
`TConn`); the tests of the HTTP edge run against it.
"""

import socket
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any

import orjson
from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http import errors as parse_errors
from gunicorn.workers.gthread import ThreadWorker

from app.responses.problems import http_problem
from app.service.components import EXTENSION

# A client has this long to send its header, and then its body.
HEADER_S = 5
BODY_S = 30
# A client that is answered early sends on for a while before it reads the answer, and a proxy would
# report a reset as our failure. So everything that comes within Gunicorn's 2 s is read.
LINGER_BYTES = 2**31

_STATUS = {
    parse_errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    parse_errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    parse_errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    parse_errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class EdgeLogger(Logger):
    """Gunicorn's own log lines, sent through the root logger, which writes JSON."""

    def setup(self, cfg: Any) -> None:
        """Configure logging as Gunicorn does, and let the root logger write its lines."""
        super().setup(cfg)
        self.error_log.propagate = True


class EdgeWorker(ThreadWorker):
    """A threaded worker in which no client holds a thread or the main loop for long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wsgi: Any = None
        # Connection -> monotonic time at which a thread took it, and whether its header is read.
        self._taken_at: dict[Any, float] = {}
        self._has_header: set[Any] = set()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM answer the waiting requests with what is known, then drain."""
        super().handle_exit(sig, frame)
        # None while the application is being imported.
        if self.wsgi is not None:
            self.wsgi.extensions[EXTENSION].changes.release()

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread once it has sent a byte; until then the poller has it.

        Gunicorn itself would let the thread wait up to 5 s for the first byte.
        """
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + HEADER_S
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: Any) -> Any:
        """Serve one request; `murder_pending` watches its time."""
        self._taken_at[conn] = time.monotonic()
        try:
            keep = super().handle(conn)
        finally:
            self._has_header.discard(conn)
            del self._taken_at[conn]
        if keep is False:
            # Gunicorn would wait for the client's last bytes in the main loop, up to 2 s each.
            util.close_graceful(conn.sock, max_drain=LINGER_BYTES)
            conn.close = _already_closed
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose header is read."""
        self._has_header.add(conn)
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Each second, close connections whose client sends or reads too slowly."""
        super().murder_pending()
        now, progress = time.monotonic(), self.wsgi.extensions[EXTENSION].progress
        for conn, taken_at in list(self._taken_at.items()):
            # An upload or a stream may take any time while its client makes progress.
            age_s = now - max(taken_at, progress.last(conn.sock))
            # This does not disturb a request that waits for a result: its body is already read.
            limit_s = BODY_S if conn in self._has_header else HEADER_S
            if age_s > self.cfg.timeout:
                _shut(conn, socket.SHUT_RDWR)
            elif age_s > limit_s:
                _shut(conn, socket.SHUT_RD)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer malformed HTTP with a problem object; neither it nor the log quotes the client.

        Gunicorn repeats the offending line, which may be a text whose length was misstated.
        """
        bad = isinstance(exc, parse_errors.ParseException)
        status = _STATUS.get(type(exc), HTTPStatus.BAD_REQUEST) if bad else 500
        log = self.log.warning if bad else self.log.error
        log("%s ended a request before it reached the application", type(exc).__name__)
        problem = http_problem(int(status))
        body, answered = orjson.dumps(problem), HTTPStatus(problem["status"])
        head = (
            f"HTTP/1.1 {int(answered)} {answered.phrase}\r\nConnection: close\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            util.write_nonblock(client, head.encode("ascii") + body)


def _already_closed(graceful: bool = False) -> None:
    """Replaces the `close` method of a connection that is already closed."""


def _shut(conn: Any, how: int) -> None:
    with suppress(OSError):
        conn.sock.shutdown(how)
