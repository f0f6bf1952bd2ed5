"""A Redis transport for kombu that takes all that waits, up to a budget, in one round trip.

kombu pops one message with BRPOP and notes it as unacknowledged in a second step; a worker that
dies or freezes in between loses it. Here one script moves messages from the priority lists into
kombu's own `unacked` hash, so that restoring at shutdown and Celery's tools work as ever. An
empty-handed fetch is followed by a wait that blocks on the most urgent list and removes nothing
(BLMOVE of the list's last element onto itself).

Written against kombu 5.7: it overrides `_brpop_start` and `_brpop_read`, which are private.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from time import monotonic, time
from typing import Any, NamedTuple

import orjson
import redis
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis

_FETCH = (Path(__file__).parent / "lua" / "fetch.lua").read_text()

# Bulk work on an idle worker starts within this time; urgent work starts at once.
IDLE_WAIT_S = 0.05


class Room(NamedTuple):
    """How much of one priority a worker can take."""

    jobs: int
    bytes: int


@contextmanager
def refusal_as_lost_connection() -> Iterator[None]:
    """Treat a Redis that is full or read-only like one that is away.

    Celery reconnects until it is well again, and the jobs wait meanwhile; any other error would end
    the worker.
    """
    try:
        yield
    except redis.ResponseError as error:
        raise redis.ConnectionError(f"Redis refused: {error}") from error


class QoS(kombu_redis.QoS):
    """Keeps kombu's books of delivered messages; the fetch script has written Redis's already."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message; in Redis too if it came by kombu's own way."""
        if self.channel.is_delivering_fetched:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)


class Channel(kombu_redis.Channel):
    """A channel that fetches in bulk the queues that are consumed with acknowledgement."""

    QoS = QoS
    fetch_jobs = 256
    fetch_bytes = 16_384
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "fetch_jobs",
        "fetch_bytes",
    )

    is_delivering_fetched = False
    _command = ""
    _fetches_next = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._no_ack_queues: set[str] = set()
        super().__init__(*args, **kwargs)
        self.room = dict.fromkeys(self.priority_steps, Room(self.fetch_jobs, self.fetch_bytes))

    def look_again(self) -> None:
        """Fetch at the next turn of the event loop even if the last fetch came back empty.

        The reply then ends the loop's poll at once, so it also keeps a busy worker turning.
        """
        self._fetches_next = True

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume `queue`; kombu's way without acknowledgement, else by fetching."""
        if no_ack:
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        # Broadcast queues share the channel but are not read by BRPOP: `active_queues` leaves
        # them out. What remains without acknowledgement are replies to control commands.
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
                    # Something came, or it is time to look at the less urgent lists.
                    self._send_fetch(self._queue_cycle.consume(len(self.active_queues)))
                    reply = self.client.parse_response(connection, self._command, **options)
        except self.connection_errors:
            connection.disconnect()
            raise
        return reply or []

    def _deliver_fetched(self, fetched: list[bytes]) -> None:
        self.is_delivering_fetched = True
        try:
            for queue, message in zip(fetched[::2], fetched[1::2], strict=True):
                self.connection._deliver(orjson.loads(message), queue.decode())
        finally:
            self.is_delivering_fetched = False


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


def install() -> None:
    """Make `redis://` URLs mean this transport in this process; Flower still reads "redis"."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
