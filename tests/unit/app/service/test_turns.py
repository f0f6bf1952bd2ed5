"""Long work gives way, and work on large bodies runs in few threads of its own."""

import threading
import time
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from app.service.turns import (
    ALONE_AFTER_S,
    LARGE_AT_ONCE,
    LARGE_BYTES,
    TURN_ALONE_S,
    TURN_S,
    LargeWork,
    Rounds,
    in_turns,
)
from tests.conftest import HANG_S, wait_until


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_items_come_as_they_are():
    assert list(in_turns(iter(range(1000)))) == list(range(1000))


def test_long_work_lets_others_run_in_between():
    order = []

    def work() -> None:
        for item in in_turns(range(5)):
            busy(2 * TURN_S)
            order.append(item)

    def other() -> None:
        order.append("other")

    gevent.joinall([gevent.spawn(work), gevent.spawn(other)], raise_error=True)
    assert order.index("other") <= 1


def test_long_work_goes_on_beside_others_that_are_always_ready():
    done = Event()

    def work() -> None:
        for _ in in_turns(range(20)):
            busy(2 * TURN_S)
        done.set()

    def restless() -> None:
        while not done.is_set():
            gevent.sleep(0)

    greenlets = [gevent.spawn(work), gevent.spawn(restless)]
    assert done.wait(timeout=10)
    gevent.joinall(greenlets, raise_error=True)


@pytest.mark.parametrize("works_by", ["give_way", "wait_for_next", "in_turns"])
def test_client_with_many_connections_gets_no_more_time_than_another(works_by):
    rounds, order = Rounds(), []

    def work(client: str, num_steps: int) -> None:
        turn = rounds.turn_of(client)
        turn.join()
        for _ in in_turns(range(num_steps)) if works_by == "in_turns" else range(num_steps):
            if works_by != "in_turns":
                getattr(turn, works_by)()
            busy(2 * TURN_S)
            order.append(client)

    many = [gevent.spawn(work, "greedy", 10) for _ in range(50)]
    gevent.joinall([*many, gevent.spawn(work, "other", 10)], raise_error=True)
    assert len(order) == 510
    last = max(at for at, client in enumerate(order) if client == "other")
    # Each connection begins at once; then each client has one turn in a round.
    assert order[: last + 1].count("greedy") <= 50 + 2 * 10


def test_turn_of_a_client_that_is_alone_lasts_longer():
    rounds = Rounds()
    one, other = rounds.turn_of("one"), rounds.turn_of("other")
    rounds.turn_s(one, now=0.0)
    assert rounds.turn_s(one, now=ALONE_AFTER_S) == TURN_ALONE_S
    assert rounds.turn_s(other, now=ALONE_AFTER_S) == TURN_S
    assert rounds.turn_s(one, now=ALONE_AFTER_S) == TURN_S
    assert rounds.turn_s(one, now=2 * ALONE_AFTER_S) == TURN_ALONE_S


def test_connection_that_ends_while_it_waits_for_a_turn_leaves_it_to_others():
    turn, order = Rounds().turn_of("client"), []

    def work(name: str) -> None:
        turn.wait_for_next()
        order.append(name)

    first, second = gevent.spawn(work, "first"), gevent.spawn(work, "second")
    gevent.sleep(0)
    first.kill()
    second.join(timeout=10)
    assert order == ["second"]


@pytest.mark.parametrize(
    ("num_bytes", "is_apart"), [(0, False), (LARGE_BYTES - 1, False), (LARGE_BYTES, True)]
)
def test_only_large_work_runs_in_another_thread(num_bytes, is_apart):
    here = threading.get_ident()
    # `_thread` is what gevent never replaces here.
    assert (LargeWork().run(num_bytes, threading.get_ident) != here) == is_apart


def test_error_of_large_work_is_raised_and_not_printed(capfd):
    def fail() -> None:
        raise ValueError("zanzibar")

    with pytest.raises(ValueError, match="zanzibar"):
        LargeWork().run(LARGE_BYTES, fail)
    assert "zanzibar" not in "".join(capfd.readouterr())


def test_client_with_many_large_bodies_leaves_a_thread_to_others():
    large, rounds, is_other_done = LargeWork(), Rounds(), threading.Event()

    def send(client: str, work: Callable[[], object]) -> object:
        rounds.turn_of(client).join()
        return large.run(LARGE_BYTES, work)

    def greedy() -> bool:
        return is_other_done.wait(timeout=HANG_S)

    many = [gevent.spawn(send, "greedy", greedy) for _ in range(LARGE_AT_ONCE)]
    # They have begun, or wait for their turn.
    gevent.sleep(0.05)
    gevent.joinall([*many, gevent.spawn(send, "other", is_other_done.set)], raise_error=True)
    assert all(each.value for each in many)


def test_large_work_is_done_few_at_once_while_others_run():
    large, running, most, ticks = LargeWork(), [], [], []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        until = len(ticks) + 4
        try:
            # Until others have run, and so many at once as may be.
            wait_until(lambda: len(ticks) >= until and len(most) >= LARGE_AT_ONCE, every_s=0.001)
        finally:
            running.pop()

    def tick() -> None:
        while len(most) < 6 or running:
            ticks.append(1)
            gevent.sleep(0.005)

    greenlets = [gevent.spawn(large.run, LARGE_BYTES, work) for _ in range(6)]
    gevent.joinall([*greenlets, gevent.spawn(tick)], raise_error=True)
    assert max(most) == LARGE_AT_ONCE
