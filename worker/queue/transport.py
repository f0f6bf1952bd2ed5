"""Fetches all waiting messages up to a budget in one round trip: a Redis transport for kombu.

kombu pops one message with BRPOP and stores it as unacknowledged in a second step; a worker that
dies in between loses it. Here one script moves messages from the waiting lists into kombu's own
`unacked` hash, so Celery's tools work as before. After a fetch that found nothing, the worker
waits: it blocks on the list of clients with urgent messages and removes nothing (BLMOVE of the last
element of the list onto itself). A job that ends the wait of an idle worker, and comes alone, is
opened by the fetch that brings it: a round trip and a write to the disk of Redis less.

Kombu's own redelivery is switched off. `worker/recovery/dead_workers.py` requeues what a worker
left behind: by leases, at each new connection, and at the end of the process.

Written against kombu 5.7: it overrides `_brpop_start` and `_brpop_read`, which are private.
"""

import hashlib
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from time import monotonic, time
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.transport.redis import _socket_readable

from contract import keys
from contract.logs import get_logger
from contract.store.connection.scripts import script_text
from worker.scheduling.batching_delay import ANY_TIME
from worker.scheduling.room import Room, fetch_arguments

log = get_logger(__name__)

SCRIPTS = Path(__file__).parent / "lua"
_FETCH = script_text("fetch", SCRIPTS)
_FETCH_SHA = hashlib.sha1(_FETCH.encode(), usedforsecurity=False).hexdigest()
# The script returns of each message whether it is an express one, its delivery tag and its bytes.
_FIELDS_OF_MESSAGE = 3

# Bulk work on an idle worker starts within this time; urgent work starts at once.
IDLE_WAIT_S = 0.05
# After Redis refused a fetch or a wait, it is asked again after this time.
REFUSED_PAUSE_S = 0.5
# How often the age of the outstanding fetch is checked.
_CHECK_REPLY_EVERY_S = 0.5
# On close: send nothing more that is buffered, and reset the connection (socket(7), SO_LINGER).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@contextmanager
def refusal_as_lost_connection() -> Iterator[None]:
    """Treat a Redis that is full or read-only like a lost connection.

    Celery then reconnects until Redis works again, and jobs wait. Any other error would end the
    worker.
    """
    try:
        yield
    except redis.ResponseError as error:
        raise redis.ConnectionError(f"Redis refused: {error}") from error


class QoS(kombu_redis.QoS):
    """Keeps kombu's record of delivered messages; the fetch script already wrote that of Redis."""

    # Kombu would need Redis for it while it closes a connection that was lost.
    restore_at_shutdown = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a delivered message; also in Redis if kombu itself fetched it."""
        if self.channel.is_delivering_fetched:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Requeue nothing by age: leases do that, and a full Redis refuses kombu's lock."""


class Channel(kombu_redis.Channel):
    """A channel that fetches many messages at once from queues with acknowledgement."""

    QoS = QoS
    fingerprint = keys.UNBOUND
    """Of the model whose queue it fetches from."""
    first_room = Room()
    """What the first fetch may bring, of each priority."""
    read_message: Callable[[str, bytes, bool], dict[str, Any] | None]
    """Takes the delivery tag and the bytes of a message and whether it is an express message; None
    for one that it has set aside."""
    on_answer: Callable[[], None]
    """Is called when Redis has answered a fetch or a wait."""
    aboard_key: str
    """Key of the worker's suspects."""
    before_opening: Callable[[], None]
    """Is called before a fetch is sent that may open a job, so that it becomes a suspect."""
    keep_opened: Callable[[dict[str, Sequence[bytes]]], None]
    """Takes what a fetch opened, by task ID; called for each fetch that brought messages."""
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "fingerprint",
        "first_room",
        "read_message",
        "on_answer",
        "aboard_key",
        "before_opening",
        "keep_opened",
    )

    opens_after: float | None = ANY_TIME
    """A fetch may open a job that comes alone if it was submitted after this Unix time, as the
    worker would score it at once; None if the worker would not."""
    on_reply: Callable[[], None] | None = None
    """Is called after the next fetch, also after one that brings nothing or is refused."""
    is_refused = False
    """Whether Redis refused the last fetch."""
    is_delivering_fetched = False
    _in_poll: Any
    _brpop_sent_at: Any
    _command = ""
    _fetches_next = True
    _may_fetch_at = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._no_ack_queues: set[str] = set()
        super().__init__(*args, **kwargs)
        self.room = dict.fromkeys(self.priority_steps, self.first_room)

    def look_again(self) -> None:
        """Fetch at the next turn of the event loop even if the last fetch found nothing.

        Its reply ends the poll of the loop at once, so a busy worker does not wait.
        """
        self._fetches_next = True

    def look_for_more(self, on_reply: Callable[[], None]) -> None:
        """Fetch at the next turn of the event loop, and call `on_reply` then."""
        self._fetches_next, self.on_reply = True, on_reply

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume `queue`: by fetching, or kombu's way if it needs no acknowledgement."""
        if no_ack:
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _queue_bind(self, *args: Any) -> None:
        """Note a binding in Redis; a worker that reconnects goes without it if Redis refuses it.

        Binding the queue of jobs again changes nothing, and control commands need none.
        """
        with suppress(redis.ResponseError):
            super()._queue_bind(*args)

    def maybe_refresh_binding_expiry(self) -> None:
        """Renew and sweep the notes of bindings; where Redis refuses that, it goes without them.

        Kombu would log a traceback once a second while the disk of Redis is full.
        """
        with suppress(redis.ResponseError):
            super().maybe_refresh_binding_expiry()

    def close(self) -> None:
        """Close the channel, also where Redis does not answer.

        Kombu raises then, and Celery takes the connection from under the half-closed channel. The
        messages of an outstanding fetch are not delivered: they are unacknowledged in Redis.
        """
        self._closing = True
        if self._in_poll and self._command != "BRPOP":
            # Read, so that the fetch does not happen after the messages were requeued.
            with suppress(Exception):
                self._read_reply()
            self._in_poll = None
        try:
            super().close()
        except Exception as error:  # noqa: BLE001 - a channel that stays open ends the worker later
            log.warning("channel_closed_without_redis", error=type(error).__name__)
            self._disconnect_pools()
            self._close_clients()
            virtual.Channel.close(self)

    def check_reply(self) -> None:
        """Notice a connection that is silently dead, by a reply that is overdue.

        Both commands of an idle worker are answered within `IDLE_WAIT_S`.

        Raises:
            redis.TimeoutError: no reply came within the time limit of Redis.
        """
        connection = self._in_poll
        if not connection or self._command == "BRPOP":
            return
        silent_s = monotonic() - self._brpop_sent_at
        if silent_s < (self.socket_timeout or 0) + IDLE_WAIT_S:
            return
        if connection._sock is not None and _socket_readable(connection._sock):
            return  # the reply came while a micro-batch ran
        self._drop(connection)
        raise redis.TimeoutError(f"no reply to a fetch for {silent_s:.1f} s")

    def _drop(self, connection: Any) -> None:
        """Disconnect for good: a fetch that waits in a dead connection must never arrive."""
        if connection._sock is not None:
            with suppress(OSError):
                connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        connection.disconnect()

    def _brpop_start(self, timeout: float | None = None) -> None:
        # `active_queues` leaves out broadcast queues: BRPOP does not read them. The other queues
        # without acknowledgement are replies to control commands.
        if self._no_ack_queues.intersection(self.active_queues):
            self._command = "BRPOP"
            super()._brpop_start(timeout)
            return
        if all(room.is_none for room in self.room.values()):
            # A wait for messages would end at once, again and again, while some are there.
            self._may_fetch_at = monotonic() + IDLE_WAIT_S
        if monotonic() < self._may_fetch_at:
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        if self._fetches_next:
            self._send_fetch()
        else:
            self._command = "BLMOVE"
            urgent = keys.turns(self.fingerprint, self.priority_steps[0])
            self.client.connection.send_command(
                "BLMOVE", urgent, urgent, "RIGHT", "RIGHT", IDLE_WAIT_S
            )

    def _send_fetch(self, *, may_open: bool = False) -> None:
        if may_open:
            self.before_opening()
        self._send_script("EVALSHA", _FETCH_SHA, self.aboard_key if may_open else "")

    def _send_script(self, command: str, script: str, aboard: str = "") -> None:
        self._command = command
        worker = self.unacked_key, self.unacked_index_key
        after = ANY_TIME if self.opens_after is None else self.opens_after
        names, args = fetch_arguments(self.fingerprint, self.room, worker, time(), aboard, after)
        self.client.connection.send_command(self._command, script, len(names), *names, *args)

    def _brpop_read(self, **options: Any) -> bool:
        if self._command == "BRPOP":
            return bool(super()._brpop_read(**options))
        try:
            fetched = self._read_reply(**options)
            on_reply, self.on_reply = self.on_reply, None
            if on_reply is not None:
                on_reply()
            if not fetched:
                raise Empty
            self._deliver_fetched(fetched)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _read_reply(self, **options: Any) -> list[bytes] | None:
        """Return what was fetched; None if Redis takes no writes at the moment.

        Choose what to send next: a fetch while there is a backlog, else a wait.
        """
        connection, has_waited = self.client.connection, False
        # Redis may refuse the wait, which counts as a write, and take a fetch.
        self._fetches_next = True
        try:
            reply = self._parse_reply(**options)
            if self._command == "BLMOVE" and not self._closing:
                # A message came, or it is time to look at the less urgent lists.
                has_waited = reply is not None
                self._send_fetch(may_open=has_waited and self.opens_after is not None)
                reply = self._parse_reply(**options)
        except redis.ReadOnlyError as error:
            # It has become a replica: a new connection finds the server that takes writes.
            self._drop(connection)
            raise redis.ConnectionError(f"Redis refused: {error}") from error
        except redis.ResponseError as error:
            if self._command != "BLMOVE" and not self.is_refused:
                log.warning("fetch_refused", error=str(error).partition(" ")[0])
                self.is_refused = True
            self._may_fetch_at = monotonic() + REFUSED_PAUSE_S
            return None
        except self.connection_errors:
            self._drop(connection)
            raise
        self.is_refused = False
        # A second fetch after a message that came alone would find nothing.
        is_alone = has_waited and len(reply) // _FIELDS_OF_MESSAGE == 1
        self._fetches_next = bool(reply) and not is_alone
        self.on_answer()
        return reply or []

    def _parse_reply(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, self._command, **options)
        except redis.exceptions.NoScriptError:
            # It is the first fetch, or Redis was started again.
            self._send_script("EVAL", _FETCH)
            return self.client.parse_response(connection, self._command, **options)

    def _deliver_fetched(self, fetched: list[Any]) -> None:
        self.is_delivering_fetched = True
        is_opened = len(fetched) % _FIELDS_OF_MESSAGE == 1
        self.keep_opened({fetched[1].decode(): fetched.pop()} if is_opened else {})
        try:
            columns = (fetched[first::_FIELDS_OF_MESSAGE] for first in range(_FIELDS_OF_MESSAGE))
            for express, tag, raw in zip(*columns, strict=True):
                with refusal_as_lost_connection():
                    message = self.read_message(tag.decode(), raw, express == b"1")
                if message is not None:
                    self.connection._deliver(message, keys.QUEUE)
        finally:
            self.is_delivering_fetched = False


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Also check that fetches are answered."""
        super().register_with_event_loop(connection, loop)

        def check_replies() -> None:
            for channel in list(self.cycle._channels):
                channel.check_reply()

        loop.call_repeatedly(_CHECK_REPLY_EVERY_S, check_replies)


def install() -> None:
    """Use this transport for `redis://` URLs in this process; Flower still reads "redis"."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
