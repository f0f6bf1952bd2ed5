"""Fetches all waiting messages up to a budget in one round trip: a Redis transport for kombu.

kombu pops one message with BRPOP and stores it as unacknowledged in a second step; a worker that
dies in between loses it. Here one script moves messages from the priority lists into kombu's own
`unacked` hash. So restoring at shutdown and Celery's tools work as before. After a fetch that found
nothing, the worker waits: it blocks on the most urgent list and removes nothing (BLMOVE of the last
element of the list onto itself).

Written against kombu 5.7: it overrides `_brpop_start` and `_brpop_read`, which are private.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from time import monotonic, time
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis

from worker.batching import Room

_FETCH = (Path(__file__).parent / "lua" / "fetch.lua").read_text()

# Bulk work on an idle worker starts within this time; urgent work starts at once.
IDLE_WAIT_S = 0.05


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

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a delivered message; also in Redis if kombu itself fetched it."""
        if self.channel.is_delivering_fetched:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)


class Channel(kombu_redis.Channel):
    """A channel that fetches many messages at once from queues with acknowledgement."""

    QoS = QoS
    fetch_jobs = 256
    fetch_bytes = 16_384
    read_message: Callable[[str, bytes], dict[str, Any] | None]
    """Takes the delivery tag and the bytes of a message; None for one that it has set aside."""
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "fetch_jobs",
        "fetch_bytes",
        "read_message",
    )

    is_delivering_fetched = False
    _command = ""
    _fetches_next = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._no_ack_queues: set[str] = set()
        super().__init__(*args, **kwargs)
        self.room = dict.fromkeys(self.priority_steps, Room(self.fetch_jobs, self.fetch_bytes))

    def look_again(self) -> None:
        """Fetch at the next turn of the event loop even if the last fetch found nothing.

        Its reply ends the poll of the loop at once, so a busy worker does not wait.
        """
        self._fetches_next = True

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume `queue`: by fetching, or kombu's way if it needs no acknowledgement."""
        if no_ack:
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        # `active_queues` leaves out broadcast queues: BRPOP does not read them. The other queues
        # without acknowledgement are replies to control commands.
        if self._no_ack_queues.intersection(self.active_queues):
            self._command = "BRPOP"
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        if self._fetches_next:
            self._send_fetch(queues)
        else:
            self._command = "BLMOVE"
            urgent = self._q_for_pri(queues[0], self.priority_steps[0])
            self.client.connection.send_command(
                "BLMOVE", urgent, urgent, "RIGHT", "RIGHT", IDLE_WAIT_S
            )

    def _send_fetch(self, queues: list[str]) -> None:
        self._command = "EVAL"
        names, rooms = [self.unacked_key, self.unacked_index_key], []
        for priority in self.priority_steps:
            for queue in queues:
                names.append(self._q_for_pri(queue, priority))
                rooms += [queue, *self.room[priority]]
        self.client.connection.send_command(
            "EVAL", _FETCH, len(names), *names, repr(time()), *rooms
        )

    def _brpop_read(self, **options: Any) -> bool:
        if self._command == "BRPOP":
            return bool(super()._brpop_read(**options))
        try:
            fetched = self._read_reply(**options)
            self._fetches_next = bool(fetched)
            if not fetched:
                raise Empty
            self._deliver_fetched(fetched)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _read_reply(self, **options: Any) -> list[bytes]:
        connection = self.client.connection
        try:
            with refusal_as_lost_connection():
                reply = self.client.parse_response(connection, self._command, **options)
                if self._command == "BLMOVE" and not self._closing:
                    # A message came, or it is time to look at the less urgent lists.
                    self._send_fetch(self._queue_cycle.consume(len(self.active_queues)))
                    reply = self.client.parse_response(connection, self._command, **options)
        except self.connection_errors:
            connection.disconnect()
            raise
        return reply or []

    def _deliver_fetched(self, fetched: list[bytes]) -> None:
        self.is_delivering_fetched = True
        try:
            for queue, tag, raw in zip(fetched[::3], fetched[1::3], fetched[2::3], strict=True):
                with refusal_as_lost_connection():
                    message = self.read_message(tag.decode(), raw)
                if message is not None:
                    self.connection._deliver(message, queue.decode())
        finally:
            self.is_delivering_fetched = False


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


def install() -> None:
    """Use this transport for `redis://` URLs in this process; Flower still reads "redis"."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
