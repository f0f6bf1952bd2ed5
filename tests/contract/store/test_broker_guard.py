"""A silent Redis is tried by one request at a time; the others are refused at once."""

import pytest
import redis

from contract.errors import BrokerUnavailable, JobNotFound
from contract.store.connection.broker_guard import PAUSE_S, BrokerGuard


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard(clock):
    return BrokerGuard(clock)


def fail(guard: BrokerGuard, cause: Exception) -> None:
    with pytest.raises(BrokerUnavailable), guard.calling():
        raise cause


def is_refused(guard: BrokerGuard) -> bool:
    try:
        with guard.calling():
            return False
    except BrokerUnavailable:
        return True


def test_calls_pass_while_redis_answers(guard):
    with pytest.raises(JobNotFound), guard.calling():
        raise JobNotFound("no")
    assert not is_refused(guard)


@pytest.mark.parametrize("cause", [redis.ConnectionError("refused"), redis.ResponseError("OOM")])
def test_quick_failure_lets_the_next_call_try(guard, cause):
    fail(guard, cause)
    assert not is_refused(guard)


def test_after_a_time_out_calls_are_refused_for_a_pause_and_then_one_tries(guard, clock):
    fail(guard, redis.TimeoutError())
    assert is_refused(guard)
    clock.now_s += PAUSE_S + 0.01
    with guard.calling():
        assert is_refused(guard)
    assert not is_refused(guard)


def test_trial_that_times_out_begins_another_pause(guard, clock):
    fail(guard, redis.TimeoutError())
    clock.now_s += PAUSE_S + 0.01
    fail(guard, redis.TimeoutError())
    assert is_refused(guard)
    clock.now_s += PAUSE_S + 0.01
    assert not is_refused(guard)


@pytest.mark.parametrize("error", [redis.TimeoutError(), redis.ReadOnlyError()])
def test_other_connections_are_given_up_where_they_may_be_dead_or_lead_to_a_replica(clock, error):
    lost = []
    guard = BrokerGuard(clock, on_lost=lambda: lost.append(error))
    with pytest.raises(BrokerUnavailable), guard.calling():
        raise error
    assert lost == [error]
