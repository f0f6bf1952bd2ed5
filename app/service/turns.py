"""Shares the one thread that serves all requests among clients; large bodies have threads."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TypeVar
from weakref import WeakValueDictionary

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool

# A client works for about this long, then the next one has its turn.
TURN_S = 0.002
# The same for a client that is alone: each turn costs about 0.1 ms.
TURN_ALONE_S = 0.020
# For so long after two clients have worked, none counts as alone.
ALONE_AFTER_S = 1.0
# A smaller body is parsed and checked in a few milliseconds.
LARGE_BYTES = 256 * 1024
# Threads for large bodies. A parsed body takes several times its size. One client gets one thread.
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
    """Serve other connections, those of other clients first, then go on."""
    turn = _current_turn()
    if turn is None:
        _run_ready_connections()
    else:
        turn.wait_for_next()


def _current_turn() -> "Turn | None":
    """The turn that this greenlet has joined."""
    turn: Turn | None = getattr(gevent.getcurrent(), "turn", None)
    return turn


def _run_ready_connections() -> None:
    """Serve other connections once.

    `gevent.sleep(0)` would look for new bytes on connections only every 50 turns. The highest
    priority keeps a busy server from putting this off for ever.
    """
    gevent.idle(gevent.get_hub().loop.MAXPRI)


class Turn:
    """The time that all connections of one client share in each round of the event loop."""

    def __init__(self, rounds: "Rounds") -> None:
        """Begin when the client first works."""
        self._rounds = rounds
        self._began_in = -1
        self._until = 0.0
        self._waiting: dict[Event, None] = {}
        self.large_work = Semaphore(1)
        """Held by the one connection whose large body is worked on."""

    def join(self) -> None:
        """Have `let_others_run` in this greenlet wait for the next turn of this client."""
        gevent.getcurrent().turn = self

    def give_way(self) -> None:
        """Wait for the next turn if this one is over."""
        now = time.perf_counter()
        if self._began_in != self._rounds.number:
            self._begin(now)
        if self._waiting or now > self._until:
            self.wait_for_next()

    def wait_for_next(self) -> None:
        """Wait until others have run, and connections of this client that came before."""
        may_go_on = Event()
        self._waiting[may_go_on] = None
        self._rounds.enqueue(self)
        try:
            may_go_on.wait()
        finally:
            self._waiting.pop(may_go_on, None)

    def run(self) -> bool:
        """Let connections go on, one after another, for one turn; whether some wait still."""
        self._begin(time.perf_counter())
        while self._waiting and time.perf_counter() < self._until:
            may_go_on = next(iter(self._waiting))
            del self._waiting[may_go_on]
            may_go_on.set()
            # It runs until it waits for something.
            gevent.sleep(0)
        return bool(self._waiting)

    def _begin(self, now: float) -> None:
        self._began_in = self._rounds.number
        self._until = now + self._rounds.turn_s(self, now)


class Rounds:
    """Gives clients turns, so that one with many busy connections gets no more time than others."""

    def __init__(self) -> None:
        """Count the rounds of the event loop of this thread, and serve no client yet."""
        self.number = 0
        self._turns = WeakValueDictionary[str, Turn]()
        self._queued: dict[Turn, None] = {}
        self._last: Turn | None = None
        self._are_several_until = 0.0
        self._after_each_poll = gevent.get_hub().loop.check(ref=False)
        self._after_each_poll.start(self._count)

    def turn_of(self, client: str) -> Turn:
        """The turn that all connections of `client` share."""
        turn = self._turns.get(client)
        if turn is None:
            turn = self._turns[client] = Turn(self)
        return turn

    def turn_s(self, turn: Turn, now: float) -> float:
        """Note that the client of `turn` works `now`; how long its turn may last, in seconds."""
        if turn is not self._last:
            self._last, self._are_several_until = turn, now + ALONE_AFTER_S
        return TURN_S if now < self._are_several_until else TURN_ALONE_S

    def enqueue(self, turn: Turn) -> None:
        """Run `turn` in the next round."""
        if not self._queued:
            gevent.spawn(self._run)
        self._queued[turn] = None

    def _run(self) -> None:
        while self._queued:
            _run_ready_connections()
            for turn in list(self._queued):
                if not turn.run():
                    del self._queued[turn]

    def _count(self) -> None:
        self.number += 1


class LargeWork:
    """Runs work on large bodies in threads of their own, few at once and one of each client."""

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
        turn = _current_turn()
        with turn.large_work if turn is not None else nullcontext():
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
