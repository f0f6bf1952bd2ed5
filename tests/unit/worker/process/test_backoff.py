"""The wait between connections that are lost again soon."""

import time

from worker.process.backoff import GOOD_S, MAX_S, Backoff, wait


class Clock:
    """A clock that the test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def delays_s(clock: Clock, backoff: Backoff, lasted_s: float, times: int) -> list[float]:
    found = []
    for _ in range(times):
        found.append(backoff.delay_s())
        clock.now_s += found[-1] + lasted_s
    return found


def test_connections_lost_at_once_are_made_more_and_more_rarely():
    clock = Clock()
    found = delays_s(clock, Backoff(clock), 0.01, 2000)
    assert found[:8] == [0, 0, 0.25, 0.5, 1, 2, 4, MAX_S]
    assert set(found[8:]) == {MAX_S}


def test_connection_that_lasted_ends_the_wait():
    clock = Clock()
    backoff = Backoff(clock)
    delays_s(clock, backoff, 0.01, 10)
    clock.now_s += GOOD_S
    assert delays_s(clock, backoff, GOOD_S, 5) == [0] * 5


def test_wait_ends_when_the_process_is_to_stop():
    began = time.monotonic()
    wait(60, is_stopping=lambda: time.monotonic() - began > 0.05)
    assert 0.05 < time.monotonic() - began < 5
    wait(0.05, is_stopping=lambda: False)
    assert time.monotonic() - began >= 0.1
