"""Subclasses Gunicorn's gevent worker: limits each client, answers malformed HTTP with problems.

Each connection has a greenlet, so that a client that waits, or sends and reads slowly, holds little
memory and no thread. It relies on Gunicorn 27's own names (`GeventWorker.run`, `handle`,
`handle_request`); the tests of the HTTP edge run against it.

Gunicorn imports this module before gevent replaces the blocking functions of Python. So whatever
holds one of these functions, as a client of Redis does, is imported where it is used.
"""

import gc
import sys
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import gevent
import orjson
from gevent.event import Event
from gevent.pool import Pool
from gevent.socket import wait_read
from gunicorn import http, util
from gunicorn.http import errors as parse_errors
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from app.server.answer import Answer
from app.server.header_timeout import HEADER_S, HeaderTimeout, has_unread_bytes

# All header fields of a request together; nginx takes as much by default. Gunicorn limits each one
# alone, and joins those of one name: half a MB of Accept takes 0.3 s to read.
MAX_HEADER_BYTES = 32 * 1024
# So much is received of a header without an end: also its line, and what comes with its last byte.
MAX_UNENDED_BYTES = MAX_HEADER_BYTES + 16 * 1024
# A client that is answered early sends on for a while before it reads the answer, and a proxy would
# report a reset as our failure. So everything that comes within Gunicorn's 2 s is read.
LINGER_BYTES = 2**31
# So much of a body that the application left is read. Beyond that the connection is closed.
DRAINED_BYTES = 64 * 1024
# A stopping worker answers requests that clients are sending already on open connections.
STOP_LINGER_S = 1.0
# As Gunicorn spells the names of fields.
FORWARDED_FOR = "X-FORWARDED-FOR"
# After `drain_s` the process closes the connections that are left, exports its spans and ends.
CUT_OFF_S = 1.0
EXIT_S = 5.0
# The thread that serves all connections waits at most about this long for one that works on a large
# body. Python's own 5 ms would pass at each of several steps of a request.
THREAD_SWITCH_S = 0.001

_STATUS = {
    parse_errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    parse_errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    parse_errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    parse_errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class _IdleTooLong(Exception):
    """An idle connection has sent nothing for as long as it is kept open."""


class EdgeWorker(GeventWorker):
    """A gevent worker in which no client can hold what others need for long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wsgi: Any = None
        self._stopping = Event()
        # Greenlets of connections between two requests, or before the first.
        self._idle: set[gevent.Greenlet] = set()
        # Those between two requests, longest idle first, with their clients.
        self._kept: dict[gevent.Greenlet, str | None] = {}
        # Those that were chosen to be closed, and have not ended yet.
        self._closing: dict[gevent.Greenlet, str | None] = {}
        self._pool = Pool(self.worker_connections)

    def load_wsgi(self) -> None:
        """Import the application, and count the connections of each client."""
        super().load_wsgi()
        sys.setswitchinterval(THREAD_SWITCH_S)
        from app.server.refused_connections import RefusedConnections
        from app.service.components import EXTENSION
        from app.service.slots import ConnectionSlots
        from app.service.turns import Rounds

        self._service = self.wsgi.extensions[EXTENSION]
        self._slots = ConnectionSlots(self.worker_connections, "connections")
        self._service.metrics.show_slots("connection", self._slots)
        self._refused = RefusedConnections()
        self._rounds = Rounds()
        # The application stays for the life of the process. The collector would look through all of
        # it every few hundred requests, for a tenth of the CPU time.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM stop, from `run`: a signal handler must not wait for locks."""
        super().handle_exit(sig, frame)
        self._stopping.set()

    def run(self) -> None:
        """Serve until SIGTERM; then answer waiting requests with what is known, and drain."""
        from app.server.connections import ConnectionServer

        servers = [
            ConnectionServer(listener, handle=partial(self.handle, listener), spawn=self._pool)
            for listener in self.sockets
        ]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._refused.log_due()
            self._stopping.wait(1.0)
        for server in servers:
            server.close()
        self._service.changes.release()
        self._drain(self._pool)
        if self._service.tracing is not None:
            self._service.tracing.stop()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve the requests of one connection, one after another."""
        from app.requests.clients import client_of_connection
        from app.responses.problems import problem
        from contract.errors import error_body

        proxies = self._service.settings.proxy_networks
        name = client_of_connection(addr[0] if addr else "", proxies)
        if name is not None and not self._slots.take(name):
            self._refused.add(name)
            self._refuse(client, problem(error_body(self._slots.refusal())))
            util.close(client)
            return
        self._close_idle(name)
        if name is not None:
            client.take_turns(self._rounds.turn_of(name))
        try:
            self._serve(listener.getsockname(), client, addr, name)
        finally:
            if name is not None:
                self._slots.release(name)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request.

        Gunicorn's own method would also call hooks, write a log and count requests. None of that is
        used here, and `max_requests` and `keepalive` have no effect.

        Raises:
            StopIteration: the connection must be closed.
        """
        answer, environ = wsgi.create(req, sock, addr, listener_name, self.cfg, Answer)
        environ["wsgi.multithread"] = True
        if not self.alive:
            answer.force_close()
        try:
            self._run_application(environ, answer, req)
        except gevent.GreenletExit:
            raise StopIteration from None
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            # A second answer would be read as the rest of this one.
            self.log.exception("An answer broke off")
            raise StopIteration from None
        if answer.should_close():
            raise StopIteration

    def _run_application(self, environ: dict[str, Any], answer: Answer, request: Any) -> None:
        body = self.wsgi(environ, answer.start_response)
        if getattr(request.body.reader, "length", 0) >= DRAINED_BYTES:
            # Before it closes, so that the client sends its next request on another connection.
            answer.force_close()
        try:
            if isinstance(body, wsgi.FileWrapper):
                answer.write_file(body)
            else:
                for piece in body:
                    answer.write(piece)
            answer.close()
        finally:
            if hasattr(body, "close"):
                body.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer malformed HTTP with a problem object; neither it nor the log quotes the client.

        Gunicorn repeats the offending line, which may be a text whose length was misstated.
        """
        bad = isinstance(exc, parse_errors.ParseException)
        status = _STATUS.get(type(exc), HTTPStatus.BAD_REQUEST) if bad else 500
        log = self.log.warning if bad else self.log.error
        log("%s ended a request before it reached the application", type(exc).__name__)
        from app.responses.problems import http_problem

        self._refuse(client, http_problem(int(status)))

    def _refuse(self, client: Any, problem: dict[str, Any]) -> None:
        """Count and answer a problem that the application does not see."""
        self._service.metrics.count_problem(problem["type"])
        body = orjson.dumps(problem, option=orjson.OPT_APPEND_NEWLINE)
        answered = HTTPStatus(problem["status"])
        head = (
            f"HTTP/1.1 {int(answered)} {answered.phrase}\r\nConnection: close\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            util.write_nonblock(client, head.encode("ascii") + body)

    def _serve(self, server: Any, client: Any, addr: Any, name: str | None) -> None:
        parser, request, is_idle = http.get_parser(self.cfg, client, addr), None, False
        try:
            while True:
                if name is None:
                    # The header of the next request says whose it is.
                    client.leave_turns()
                is_idle = parser.req_count > 0
                if is_idle and not self._is_used_again(parser, client, name):
                    return
                is_idle = False
                request = self._next_request(parser, client)
                if request is None:
                    return
                if name is None:
                    client.take_turns(self._rounds.turn_of(self._client_behind(addr, request)))
                    client.give_way()
                # A client that stalls for this long while it takes its answer is disconnected.
                client.begin_answer(self.cfg.timeout)
                self.handle_request(server, request, client, addr)
                if not self.alive or not parser.finish_body(
                    time.monotonic() + HEADER_S, DRAINED_BYTES
                ):
                    return
        except (StopIteration, OSError, parse_errors.NoMoreData):
            # The answer closes the connection, or the client did.
            return
        except Exception as error:  # noqa: BLE001 - it becomes an answer and a line of the log
            self.handle_error(request, client, addr, error)
        finally:
            if is_idle:
                # At once: its place may be needed, and nothing is under way.
                util.close(client)
            else:
                util.close_graceful(client, max_drain=LINGER_BYTES)

    def _client_behind(self, addr: Any, request: Any) -> str:
        """The client of a request that came through a trusted proxy."""
        from app.requests.clients import client_behind

        forwarded = ",".join(value for name, value in request.headers if name == FORWARDED_FOR)
        return client_behind(addr[0], forwarded, self._service.settings.proxy_networks)

    def _is_used_again(self, parser: Any, client: Any, name: str | None) -> bool:
        """Wait until the client begins another request; False if it closes or takes too long."""
        greenlet = gevent.getcurrent()
        if parser.unreader.buf.getbuffer().nbytes or has_unread_bytes(client):
            client.give_way()
            return True
        self._idle.add(greenlet)
        self._kept[greenlet] = name
        # Also while no new client comes: in a full pool none is accepted.
        self._close_idle(name)
        try:
            wait_read(client.fileno(), self._service.settings.keepalive_s, _IdleTooLong())
            # `_close_idle` may have chosen this connection meanwhile.
            return greenlet in self._kept
        except _IdleTooLong:
            # A busy process may find them together: the end of the time, and a request.
            return greenlet in self._kept and has_unread_bytes(client)
        finally:
            self._idle.discard(greenlet)
            self._kept.pop(greenlet, None)
            self._closing.pop(greenlet, None)

    def _close_idle(self, name: str | None) -> None:
        """Close the connection that was idle for the longest time, if connections run short."""
        from app.service.slots import SPARE_SHARE

        num_free = self._pool.free_count() + len(self._closing)
        is_full = num_free < self.worker_connections * SPARE_SHARE
        num_closing = list(self._closing.values()).count(name)
        if not is_full and (name is None or not self._slots.is_nearly_full(name, num_closing)):
            return
        for greenlet, owner in self._kept.items():
            if is_full or owner == name:
                # Now, so that the next call chooses another one.
                self._closing[greenlet] = self._kept.pop(greenlet)
                greenlet.kill(block=False)
                return

    def _next_request(self, parser: Any, client: Any) -> Any:
        """The next request with its whole header; None if the client takes too long."""
        greenlet = gevent.getcurrent()
        self._idle.add(greenlet)
        # HeaderTimeout limits the wait; a time limit of the socket would start a second timer.
        client.settimeout(None)
        try:
            error = parse_errors.LimitRequestHeaders("a header that does not end")
            with HeaderTimeout(client), client.receiving_at_most(MAX_UNENDED_BYTES, error):
                request = next(parser)
        except HeaderTimeout:
            return None
        finally:
            self._idle.discard(greenlet)
        if sum(len(name) + len(value) for name, value in request.headers) > MAX_HEADER_BYTES:
            raise parse_errors.LimitRequestHeaders("all header fields together")
        # Fields behind a chunked body, too: Gunicorn would hold half a MB of them.
        request.body.reader.limit_trailer_section = MAX_HEADER_BYTES
        return request

    def _drain(self, pool: Pool) -> None:
        """Wait for the open connections, `drain_s` at most."""
        began_at = time.monotonic()
        while time.monotonic() < began_at + self._service.settings.drain_s:
            self.notify()
            if time.monotonic() > began_at + STOP_LINGER_S:
                for greenlet in list(self._idle):
                    greenlet.kill(block=False)
            if pool.join(timeout=0.1):
                return
        self.log.warning("Connections cut off: %d", len(pool))
        pool.kill(timeout=CUT_OFF_S)
