"""Calls in daemon threads: their results come in order, and nobody waits for the rest."""

import threading

import pytest

from evascore.http.threads import results_of
from tests.conftest import HANG_S


def test_results_come_in_the_order_of_the_calls():
    second_is_done = threading.Event()

    def first() -> int:
        second_is_done.wait()
        return 1

    def second() -> int:
        second_is_done.set()
        return 2

    assert list(results_of([first, second, lambda: 3], 2)) == [1, 2, 3]


def test_first_exception_is_raised_and_calls_that_wait_are_dropped():
    gate, dropped = threading.Event(), threading.Event()
    before = set(threading.enumerate())
    results = results_of([lambda: 1 // 0, gate.wait, dropped.set], 1)
    # The second call runs without an end; only the others are over.
    with pytest.raises(ZeroDivisionError):
        next(results)
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert not dropped.is_set()


def test_who_stops_reading_waits_for_no_call():
    gate, has_ended = threading.Event(), threading.Event()

    def second() -> None:
        gate.wait(HANG_S)
        has_ended.set()

    results = results_of([lambda: 1, second], 1)
    assert next(results) == 1
    results.close()
    assert not has_ended.is_set()
    gate.set()
