"""The clock of the service: that of Redis, also where the clock of this machine is wrong."""

import time

import pytest
import redis

from contract.service_clock import ServiceClock, steady

HOUR_S = 3600.0
# Between two readings of one clock on a busy machine.
SLACK_S = 5.0


@pytest.fixture
def true_time():
    """The clock of this machine, also where a test sets it wrong."""
    return time.time


@pytest.fixture
def wrong_clock(monkeypatch, true_time):
    """This machine's clock, an hour ahead."""
    monkeypatch.setattr(time, "time", lambda: true_time() + HOUR_S)


@pytest.fixture
def clock():
    return ServiceClock()


def test_until_redis_has_answered_it_is_the_clock_of_the_machine(clock, wrong_clock, true_time):
    assert clock.now() == pytest.approx(true_time() + HOUR_S, abs=SLACK_S)


def test_after_an_answer_it_is_the_clock_of_redis(clock, redis_client, wrong_clock, true_time):
    clock.ask(redis_client)
    assert clock.now() == pytest.approx(true_time(), abs=SLACK_S)


def test_clock_goes_on_between_two_answers(clock, redis_client):
    clock.ask(redis_client)
    before = clock.now()
    time.sleep(0.05)
    assert clock.now() >= before + 0.05


def test_clock_is_never_ahead_of_redis(clock, redis_client):
    clock.ask(redis_client)
    now = clock.now()
    seconds, microseconds = redis_client.time()
    assert now <= seconds + microseconds / 1e6


def test_moment_has_passed_only_if_redis_says_so(clock, redis_client, wrong_clock, true_time):
    # Nothing was asked yet: by the machine's clock, half an hour from now has passed.
    assert not clock.has_passed(true_time() + HOUR_S / 2, redis_client)
    assert clock.has_passed(true_time() - 1, redis_client)


def test_old_answer_proves_nothing(clock, redis_client, true_time):
    clock.note((int(true_time() + HOUR_S), 0), steady())
    time.sleep(0.2)
    assert not clock.has_passed(true_time() + HOUR_S / 2, redis_client)


def test_late_answer_counts_only_if_it_is_the_first(clock, redis_client, true_time):
    clock.note((int(true_time()), 0), asked_at=steady() - 9)
    assert clock.now() == pytest.approx(true_time(), abs=SLACK_S)
    clock.note((int(true_time() - HOUR_S), 0), asked_at=steady() - 9)
    assert clock.now() == pytest.approx(true_time(), abs=SLACK_S)


def test_redis_is_not_asked_for_each_of_many_moments(clock, redis_client, true_time):
    def num_asked() -> int:
        return redis_client.info("commandstats").get("cmdstat_time", {"calls": 0})["calls"]

    before, began = num_asked(), steady()
    assert all(clock.has_passed(true_time() - 1, redis_client) for _ in range(1000))
    # Once in a tenth of a second.
    assert num_asked() - before <= 2 + (steady() - began) / 0.1
    assert not clock.has_passed(true_time() + HOUR_S, redis_client)


def test_what_seems_to_have_passed_needs_an_answer(clock, true_time):
    nobody = redis.Redis(port=1, socket_connect_timeout=1)
    assert not clock.has_passed(true_time() + HOUR_S, nobody)
    with pytest.raises(redis.ConnectionError):
        clock.has_passed(true_time() - 1, nobody)
